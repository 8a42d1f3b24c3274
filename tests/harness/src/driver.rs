//! What the drivers that run for long (soak, crash) are told, and how they tell.
//!
//! Owns: settings from the environment, since `make` passes them on as they are. A setting that is wrong, and an
//! argument, which no driver takes, end the program at once: better than an hour of something else.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a driver is told.
pub struct Settings {
    /// How long it works, in its own unit.
    pub length: Option<u64>,
    /// `SEED`, or one that follows from the time.
    pub seed: u64,
}

/// Reads the settings; `length` is the name of the one that says how long. Errors: what the program is to end with,
/// once the reason was told on stderr.
pub fn settings(length: &str) -> Result<Settings, ExitCode> {
    read(length, std::env::args_os().nth(1)).map_err(|wrong| {
        drop(writeln!(io::stderr(), "{wrong}"));
        ExitCode::from(2)
    })
}

fn read(length: &str, argument: Option<OsString>) -> Result<Settings, String> {
    if let Some(argument) = argument {
        let argument = argument.display();
        return Err(format!("{argument}: no arguments; set {length} or SEED in the environment"));
    }
    let number = |name| parse(name, std::env::var_os(name));
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(Settings { length: number(length)?, seed: number("SEED")?.unwrap_or_else(now) })
}

/// Writes a line and lets it be seen at once.
pub fn tell(text: &str) {
    let mut stdout = io::stdout().lock();
    // A closed stdout has no reader to miss it.
    drop(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
}

fn parse(name: &str, text: Option<OsString>) -> Result<Option<u64>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse().ok());
    let wrong = || format!("{name}={}: a whole number is needed", text.display());
    number.map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::{parse, read};

    #[test]
    fn an_argument_is_refused_with_what_is_heeded_instead() {
        let told = read("MINUTES", Some("--help".into())).err().unwrap();
        assert!(told.starts_with("--help: ") && told.contains("MINUTES"), "{told}");
    }

    #[test]
    fn a_setting_is_a_whole_number_or_not_there() {
        assert_eq!(parse("SEED", None), Ok(None));
        assert_eq!(parse("SEED", Some("".into())), Ok(None));
        assert_eq!(parse("SEED", Some("7".into())), Ok(Some(7)));
        for wrong in ["-1", "1.5", "abc", "7 "] {
            let told = parse("SEED", Some(wrong.into())).unwrap_err();
            assert!(told.starts_with(&format!("SEED={wrong}: ")), "{told}");
        }
    }
}
