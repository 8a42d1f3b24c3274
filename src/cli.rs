//! On top: the command line. Which command is wanted, with which options, and the exit code that comes of it.
//!
//! One file per command; each runs on the main thread, prints, and returns. Exit codes: 0 done, 1 failed, 2 wrong use.
//! What a command finds goes to stdout, what is wrong with it to stderr. The commands beside `serve` start no server:
//! they look at the same files, and say so where a server that runs would be in their way.

mod backup;
mod check;
mod doctor;
mod finding;
mod logging;
mod notify;
mod reap;
mod serve;
mod token;
mod verify;
mod write_openapi;

use crate::config::{Config, Overrides, Problems};
use crate::error::Error;
use lexopt::prelude::*;
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// A command, and what it understands.
struct Command {
    name: &'static str,
    help: &'static str,
    /// The options beside the common ones.
    options: &'static [&'static str],
    /// The names of the words behind it, as they are told when one is missing.
    words: &'static [&'static str],
    words_min: usize,
    run: fn(&Options) -> Outcome,
}

/// How a command ended: its exit code, or what it could not do.
type Outcome = Result<ExitCode, Error>;

/// What stood on the command line.
#[derive(Default)]
struct Options {
    overrides: Overrides,
    /// `--check-config`, `--hints`, `--json`, `--force`: those that were given.
    switches: Vec<&'static str>,
    log_format: logging::Format,
    words: Vec<OsString>,
}

impl Options {
    fn has(&self, switch: &str) -> bool {
        self.switches.contains(&switch)
    }

    fn path(&self, place: usize) -> PathBuf {
        self.words.get(place).map(PathBuf::from).unwrap_or_default()
    }
}

/// Options that take no value.
const SWITCHES: &[&str] = &["check-config", "force", "hints", "json"];

/// Options that every command takes.
const COMMON: &[&str] = &["config", "data-dir", "log-format"];

const COMMANDS: &[Command] = &[
    Command {
        name: "serve",
        help: serve::HELP,
        options: &["bind", "check-config", "hints"],
        words: &[],
        words_min: 0,
        run: serve::run,
    },
    Command {
        name: "token",
        help: token::HELP,
        options: &[],
        words: &["rotate"],
        words_min: 0,
        run: token::run,
    },
    Command {
        name: "backup",
        help: backup::HELP,
        options: &["force"],
        words: &["FILE"],
        words_min: 1,
        run: backup::run,
    },
    Command {
        name: "restore",
        help: backup::RESTORE_HELP,
        options: &["force"],
        words: &["FILE"],
        words_min: 1,
        run: backup::restore,
    },
    Command {
        name: "verify",
        help: verify::HELP,
        options: &["json"],
        words: &[],
        words_min: 0,
        run: verify::run,
    },
    Command {
        name: "doctor",
        help: doctor::HELP,
        options: &["bind", "json"],
        words: &[],
        words_min: 0,
        run: doctor::run,
    },
    Command {
        name: "reap",
        help: reap::HELP,
        options: &[],
        words: &[],
        words_min: 0,
        run: reap::run,
    },
];

/// What the arguments ask for.
enum Wanted {
    Run(&'static Command, Options),
    /// The API document, into this file or onto stdout.
    WriteOpenapi(Option<PathBuf>),
    Tell(String),
}

/// Runs what the arguments name, and gives the exit code of the program.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match parse(arguments) {
        Err(error) => {
            tell_error(&format!("{error}; see gg-runtime-server --help"));
            ExitCode::from(2)
        }
        Ok(Wanted::Tell(text)) => {
            tell(text.trim_end());
            told(ExitCode::SUCCESS)
        }
        Ok(Wanted::WriteOpenapi(file)) => told(write_openapi::run(file.as_deref())),
        Ok(Wanted::Run(command, options)) => {
            logging::start(options.log_format, command.name);
            let code = (command.run)(&options).unwrap_or_else(|error| {
                tell_error(&error.to_string());
                ExitCode::FAILURE
            });
            // A server is not there for what it says when it starts.
            let is_server = command.name == "serve" && !options.has("check-config");
            if is_server { code } else { told(code) }
        }
    }
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Wanted, lexopt::Error> {
    let mut command = None;
    let mut options = Options::default();
    options.overrides.claude_auth_mode =
        std::env::var("GG_CLAUDE_AUTH_MODE").ok().filter(|mode| !mode.is_empty());
    let mut given: Vec<String> = Vec::new();
    let mut is_help = false;
    let mut openapi = None;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => is_help = true,
            Long("version") | Short('V') => {
                return Ok(Wanted::Tell(format!("gg-runtime-server {VERSION}")));
            }
            Long("write-openapi") => {
                openapi = Some(write_openapi::file(&mut parser));
            }
            Long(name) => {
                let name = name.to_owned();
                take_option(&name, &mut parser, &mut options)?;
                given.push(name);
            }
            Value(word) if command.is_none() => {
                let named = COMMANDS.iter().find(|known| word == known.name);
                let unknown = || format!("there is no command {:?}", word.to_string_lossy());
                command = Some(named.ok_or_else(unknown)?);
            }
            Value(word) => options.words.push(word),
            other => return Err(other.unexpected()),
        }
    }
    if is_help {
        return Ok(Wanted::Tell(command.map_or(HELP, |command| command.help).to_owned()));
    }
    if let Some(file) = openapi {
        let is_alone = command.is_none() && given.iter().all(|name| COMMON.contains(&&**name));
        let refused = "--write-openapi stands alone: it is a task of its own";
        return if is_alone { Ok(Wanted::WriteOpenapi(file)) } else { Err(refused.into()) };
    }
    let command = command.unwrap_or(&COMMANDS[0]);
    check(command, &given, &options.words)?;
    Ok(Wanted::Run(command, options))
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn take_option(
    name: &str,
    parser: &mut lexopt::Parser,
    options: &mut Options,
) -> Result<(), lexopt::Error> {
    match name {
        "config" => options.overrides.config = Some(path(name, parser)?),
        "bind" => options.overrides.bind = Some(bind(&parser.value()?.string()?)?),
        "data-dir" => options.overrides.data_dir = Some(path(name, parser)?),
        "log-format" => options.log_format = parser.value()?.string()?.parse()?,
        other => {
            let known = SWITCHES.iter().find(|switch| **switch == other);
            options.switches.push(known.ok_or_else(|| format!("there is no option --{other}"))?);
        }
    }
    Ok(())
}

/// A path. An empty one is a variable of a script that was not set, and never what is meant.
fn path(name: &str, parser: &mut lexopt::Parser) -> Result<PathBuf, lexopt::Error> {
    let value = parser.value()?;
    if value.is_empty() {
        return Err(format!("--{name} is empty").into());
    }
    Ok(PathBuf::from(value))
}

/// The shape of an address; whether there is such a host is found out later.
fn bind(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.into()),
        _ => Err(format!("--bind is {text:?}; write host:port, for example 127.0.0.1:8080")),
    }
}

/// Whether the command understands what was given.
fn check(command: &Command, given: &[String], words: &[OsString]) -> Result<(), String> {
    let name = command.name;
    let is_known = |option: &str| COMMON.contains(&option) || command.options.contains(&option);
    if let Some(option) = given.iter().find(|option| !is_known(option)) {
        return Err(format!("{name} does not take --{option}"));
    }
    if let Some(word) = words.get(command.words.len()) {
        return Err(format!("{name} does not take {:?}", word.to_string_lossy()));
    }
    match command.words.get(words.len()) {
        Some(missing) if words.len() < command.words_min => Err(format!("{name} needs {missing}")),
        _ => Ok(()),
    }
}

/// The configuration that the options name. Errors: all that is wrong with it was told already.
fn config(options: &Options) -> Result<Config, ExitCode> {
    Config::load(&options.overrides).map_err(|Problems(problems)| {
        for problem in problems {
            tell_error(&problem);
        }
        ExitCode::FAILURE
    })
}

/// A line on stdout. A reader that is gone is no reason to stop, and no failure; anything else that keeps it from being
/// written is one (see [`told`]).
fn tell(text: &str) {
    let written = writeln!(std::io::stdout(), "{}", logging::printable(text, true));
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
        && !IS_UNTOLD.swap(true, Ordering::SeqCst)
    {
        tell_error(&format!("the output can not be written: {error}"));
    }
}

/// Whether something was not written that [`tell`] was given.
static IS_UNTOLD: AtomicBool = AtomicBool::new(false);

/// The exit code of a command whose output is what it is for.
fn told(code: ExitCode) -> ExitCode {
    if IS_UNTOLD.load(Ordering::SeqCst) { ExitCode::FAILURE } else { code }
}

/// Does something to each of these children, also to those behind one where it fails. Errors: it failed for some, each
/// of which was told.
fn for_each_child(
    child_ids: &[String],
    mut work: impl FnMut(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut failed = 0;
    for child_id in child_ids {
        if let Err(error) = work(child_id) {
            tell_error(&format!("{child_id}: {error}"));
            failed += 1;
        }
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Error::internal(format!("{failed} of {} children are not ended", child_ids.len()))
        .hint("end what is left of them by hand, then run this again"))
}

fn tell_error(text: &str) {
    drop(writeln!(std::io::stderr(), "gg-runtime-server: {}", logging::printable(text, true)));
}

const HELP: &str = "\
gg-runtime-server: owns the sessions of coding agents on this machine

usage: gg-runtime-server [COMMAND] [OPTIONS]

  serve            run the server; what is done without a command
  token            print the operator's token; `token rotate` makes another
  backup FILE      copy the database, also while a server runs, and check the copy
  restore FILE     put a backup in the place of the database
  verify           check the database, the journals and the modes of the files
  doctor           check this machine, the configuration and what runs
  reap             end agents that a server has left and no server takes up

  --config FILE      the configuration (TOML); without it everything has its default
  --data-dir DIR     where everything is kept (~/.gg-runtime)
  --log-format FORM  plain or json: how the log on stderr is written
  --write-openapi [FILE]  write the API document (YAML) to FILE, else to stdout
  --version, --help  (gg-runtime-server COMMAND --help tells more)

Exit codes: 0 done, 1 failed, 2 wrong use. RUST_LOG=debug tells more on stderr.
";

#[cfg(test)]
mod tests {
    use super::*;

    /// The command and its words, or why there is none.
    fn parsed(line: &str) -> String {
        match parse(line.split_whitespace().map(OsString::from)) {
            Ok(Wanted::Run(command, options)) => {
                let words: Vec<_> = options.words.iter().map(|w| w.to_string_lossy()).collect();
                [vec![command.name.into()], words].concat().join(" ")
            }
            Ok(Wanted::WriteOpenapi(file)) => format!("write-openapi {file:?}"),
            Ok(Wanted::Tell(text)) => text.lines().next().unwrap_or_default().to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_line_names_a_command_its_words_and_options_that_it_takes() {
        assert_eq!(parsed(""), "serve");
        assert_eq!(parsed("--bind 127.0.0.1:0 serve"), "serve");
        assert_eq!(parsed("backup --data-dir d f.sqlite3 --force"), "backup f.sqlite3");
        assert_eq!(parsed("token rotate"), "token rotate");
        assert_eq!(parsed("--bind [::1]:0"), "serve");
        assert_eq!(parsed("--write-openapi"), "write-openapi None");
        assert_eq!(parsed("--write-openapi a.yaml"), "write-openapi Some(\"a.yaml\")");
        assert_eq!(parsed("--write-openapi=a.yaml"), "write-openapi Some(\"a.yaml\")");
        assert_eq!(parsed("--version"), format!("gg-runtime-server {VERSION}"));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, told) in [
            ("sreve", "there is no command \"sreve\""),
            ("--bnid x", "there is no option --bnid"),
            ("backup", "backup needs FILE"),
            ("backup a b", "backup does not take \"b\""),
            ("verify --bind a:1", "verify does not take --bind"),
            ("--log-format xml", "--log-format is \"xml\"; it can be plain or json"),
            ("--write-openapi --check-config", "--write-openapi stands alone"),
            ("doctor --write-openapi a.yaml", "--write-openapi stands alone"),
            ("--data-dir= verify", "--data-dir is empty"),
            ("--bind nonsense", "write host:port"),
            ("--bind :80", "write host:port"),
        ] {
            assert!(parsed(line).contains(told), "{line}: {}", parsed(line));
        }
    }

    #[test]
    fn a_child_that_can_not_be_ended_keeps_none_from_being_ended() {
        let child_ids = ["a", "b", "c"].map(str::to_owned);
        let mut seen = Vec::new();
        let done = for_each_child(&child_ids, |child_id| {
            seen.push(child_id.to_owned());
            if child_id == "b" { Err(Error::internal("it stays")) } else { Ok(()) }
        });
        assert_eq!(done.unwrap_err().message, "1 of 3 children are not ended");
        assert_eq!(seen, child_ids);
        assert!(for_each_child(&child_ids, |_| Ok(())).is_ok());
    }

    #[test]
    fn each_command_has_a_help_that_begins_with_its_name() {
        for command in COMMANDS {
            let first = parsed(&format!("{} --help", command.name));
            assert!(first.contains(command.name), "{first}");
        }
    }
}
