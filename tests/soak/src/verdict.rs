//! Whether a figure grows: the line through its second half, and the bound that its slope must keep.
//!
//! Owns: the bounds. A leak of one thing for each session, stream or turn would be thousands an hour. What chance makes
//! of a level load is told as the standard error of the slope: a figure grows when its slope is above the bound by more
//! than two of these.

use crate::sample::{COLUMNS, Sample};
use gooselake_harness::plot::{self, Trend};
use std::fmt::Write;

/// What a figure may grow by in an hour. None: it is the load's own, and told for the reader.
const BOUNDS: &[(&str, Option<f64>)] = &[
    ("rss_mib", Some(4.0)),
    ("private_mib", Some(4.0)),
    ("descriptors", Some(30.0)),
    ("threads", Some(20.0)),
    ("wal_mib", Some(1.0)),
    // The file keeps the room of its fullest moment, and a fuller one may come.
    ("database_mib", Some(10.0)),
    // What is kept of the last minutes; one look says much of the next, so the standard error is not the real one. A
    // leak would be in the file.
    ("used_mib", None),
    ("files_mib", Some(4.0)),
    ("keepers", None),
    ("keeper_kib", Some(60.0)),
    ("cpu_percent", None),
    ("sessions", None),
    ("streams", None),
    ("events_per_s", None),
];

/// A shorter half sees the load begin and nothing of what is dropped by age.
const HALF_HOURS_LEAST: f64 = 0.25;

pub(crate) struct Judged {
    pub(crate) table: String,
    pub(crate) failed: Vec<String>,
}

pub(crate) fn judge(samples: &[Sample]) -> Judged {
    let half = &samples[samples.len() / 2..];
    let hours = |sample: Option<&Sample>| sample.map_or(0.0, |sample| sample.hours);
    let half_hours = hours(half.last()) - hours(half.first());
    let (mut table, mut failed) = (String::new(), Vec::new());
    // Writing to a string can not fail.
    let _ = writeln!(
        table,
        "| second half | mean | least | most | slope an hour | ± | bound | |\n|---|---|---|---|---|---|---|---|"
    );
    for (name, of) in COLUMNS {
        let points: Vec<(f64, f64)> =
            half.iter().map(|sample| (sample.hours, of(sample))).collect();
        let Trend { mean, slope, error } = plot::trend(&points);
        let values = || points.iter().map(|point| point.1);
        let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
        let bound = BOUNDS.iter().find(|(other, _)| other == name).and_then(|(_, bound)| *bound);
        let verdict = match bound {
            None => "",
            Some(_) if half_hours < HALF_HOURS_LEAST => "too short to tell",
            Some(bound) if slope - 2.0 * error <= bound => "flat",
            Some(_) => "GROWS",
        };
        if verdict == "GROWS" {
            failed.push(format!("{name} grows by {slope:.2} an hour"));
        }
        let bound = bound.map_or(String::new(), |bound| format!("{bound}"));
        let _ = writeln!(
            table,
            "| `{name}` | {mean:.2} | {least:.2} | {most:.2} | {slope:+.2} | {error:.2} | {bound} | {verdict} |"
        );
    }
    Judged { table, failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(threads_of: impl Fn(usize) -> f64) -> Vec<Sample> {
        let sample = |number| Sample {
            hours: number as f64 / 360.0,
            threads: threads_of(number),
            ..Sample::default()
        };
        (0..360).map(sample).collect()
    }

    #[test]
    fn a_leak_of_one_in_a_minute_is_seen_and_a_level_load_is_not() {
        let level = |number: usize| 100.0 + (number % 7) as f64;
        assert_eq!(judge(&samples(level)).failed, Vec::<String>::new());
        let judged = judge(&samples(|number| level(number) + number as f64 / 6.0));
        assert_eq!(judged.failed.len(), 1, "{}", judged.table);
        assert!(judged.failed[0].starts_with("threads grows by "), "{:?}", judged.failed);
        // What a start takes up is no growth.
        let start = |number: usize| level(number) + if number > 100 { 50.0 } else { 0.0 };
        assert_eq!(judge(&samples(start)).failed, Vec::<String>::new());
    }

    #[test]
    fn every_column_has_its_row() {
        for (name, _) in COLUMNS {
            assert!(BOUNDS.iter().any(|(other, _)| other == name), "{name}");
        }
    }
}
