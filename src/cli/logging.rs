//! How the log is written: one line for each record, on stderr, for people or for programs.
//!
//! No colours, so that a journal holds text alone. A record is one line, and whatever it quotes of a client, an agent
//! or a file can neither end that line nor speak to the terminal that shows it: control characters, and those that turn
//! the direction of writing, are told as escapes. `RUST_LOG` filters, as everywhere.

use crate::model::id;
use log::Record;
use serde_json::json;
use std::io::{self, Write};
use std::str::FromStr;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// `time LEVEL module: message`
    #[default]
    Plain,
    /// `{"time", "level", "module", "message"}`
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(word: &str) -> Result<Format, String> {
        match word {
            "plain" => Ok(Format::Plain),
            "json" => Ok(Format::Json),
            other => Err(format!("--log-format is {other:?}; it can be plain or json")),
        }
    }
}

/// Starts the log. Commands beside the server say what they find on stdout, and only trouble here.
pub(super) fn start(format: Format, command: &str) {
    let filter = if command == "serve" { "info" } else { "warn" };
    let filter = env_logger::Env::default().default_filter_or(filter);
    let started = env_logger::Builder::from_env(filter)
        .format(move |out, record| write_record(out, format, id::now_ms(), record))
        .try_init();
    if let Err(error) = started {
        super::tell_error(&format!("there is no log: {error}"));
    }
}

fn write_record(
    out: &mut dyn Write,
    format: Format,
    now_ms: i64,
    record: &Record<'_>,
) -> io::Result<()> {
    let time = utc(now_ms);
    let level = record.level();
    let module = record.target();
    let message = record.args().to_string();
    match format {
        Format::Plain => {
            let message = printable(&message, false);
            writeln!(out, "{time} {level:<5} {module}: {message}")
        }
        Format::Json => {
            let level = level.as_str().to_lowercase();
            let object =
                json!({"time": time, "level": level, "module": module, "message": message});
            writeln!(out, "{}", printable(&object.to_string(), false))
        }
    }
}

/// The text with what a terminal would act on told as JSON tells it, so that JSON stays what it is.
pub(super) fn printable(text: &str, has_lines: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' if has_lines => shown.push('\n'),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            letter if letter.is_control() || is_unseen(letter) => {
                shown += &format!("\\u{:04x}", u32::from(letter));
            }
            letter => shown.push(letter),
        }
    }
    shown
}

/// Line and paragraph separators, and the marks that turn the direction of what follows.
fn is_unseen(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A time since the epoch as RFC 3339 in UTC, to the millisecond.
fn utc(ms: i64) -> String {
    let (secs, ms) = (ms.div_euclid(1000), ms.rem_euclid(1000));
    let (days, second) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// The date so many days after 1970-01-01. Years are counted from March here, so that the leap day is the last of one,
/// and in eras of 400 years, which all have the same number of days.
fn date(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let leaps = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, told) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_525_468_824, "2026-11-24T13:04:28.824Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(utc(ms), told);
        }
    }

    #[test]
    fn a_record_is_one_line_in_both_forms() {
        let written = |format| {
            let mut out = Vec::new();
            let record = Record::builder()
                .args(format_args!("two\nlines \"quoted\"\u{1b}[2J\u{9b}\u{202e}ä"))
                .level(log::Level::Warn)
                .target("gooselake::server")
                .build();
            write_record(&mut out, format, 0, &record).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(Format::Plain),
            "1970-01-01T00:00:00.000Z WARN  gooselake::server: \
             two\\nlines \"quoted\"\\u001b[2J\\u009b\\u202eä\n"
        );
        let line = written(Format::Json);
        assert!(!line.trim_end().contains(char::is_control), "{line:?}");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["level"], "warn");
        assert_eq!(object["message"], "two\nlines \"quoted\"\u{1b}[2J\u{9b}\u{202e}ä");
    }
}
