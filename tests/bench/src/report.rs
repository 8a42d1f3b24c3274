//! What the benchmark prints.
//!
//! Owns: standard output, and the count of targets that were met and missed. Lines appear as soon as
//! they are known, so that a run that is stopped has told what it saw.

use crate::machine;
use std::io::{self, Write};
use std::time::Instant;

/// What a figure is held against.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// For the reader alone.
    None,
}

pub(crate) struct Report {
    begun: Instant,
    met: usize,
    missed: usize,
}

impl Report {
    pub(crate) fn new() -> Report {
        Report { begun: Instant::now(), met: 0, missed: 0 }
    }

    /// A heading, with what others do on the machine at this moment: it is in every figure.
    pub(crate) fn part(&mut self, name: &str) {
        self.line("");
        self.line(&format!("{name}  ({})", machine::load()));
    }

    /// A line of text.
    pub(crate) fn line(&mut self, text: &str) {
        let mut stdout = io::stdout().lock();
        // A closed stdout has no reader to miss it.
        drop(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
    }

    /// A figure, its target, and whether that is met.
    pub(crate) fn figure(&mut self, what: &str, value: f64, unit: &str, target: Target) {
        let shown = number(value);
        let verdict = match target {
            Target::None => String::new(),
            Target::AtLeast(least) => self.judge(value >= least, ">=", least),
            Target::AtMost(most) => self.judge(value <= most, "<=", most),
        };
        let line = format!("  {what:<52} {shown:>11} {unit:<9} {verdict}");
        self.line(line.trim_end());
    }

    pub(crate) fn end(mut self) {
        let (met, missed) = (self.met, self.missed);
        let secs = self.begun.elapsed().as_secs_f64();
        self.line("");
        self.line(&format!("{met} targets met, {missed} missed, {secs:.0} s"));
    }

    fn judge(&mut self, is_met: bool, sign: &str, bound: f64) -> String {
        if is_met {
            self.met += 1;
        } else {
            self.missed += 1;
        }
        let word = if is_met { "ok" } else { "MISS" };
        format!("{sign} {:<8} {word}", number(bound))
    }
}

/// As many digits as say something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
