//! The replay conformance kit: is what a client sees of a running server what it was promised?
//!
//! Owns: the command line, the order of the checks, and the session that they look at. Each check is a function that
//! panics with what it awaited and what came; one that fails ends none of the others. It knows the server only over
//! its socket, so it can be pointed at any. It deliberately does not restart it: `--remember` and `--recall` are for
//! whoever does.

mod check;
mod target;

use gooselake_harness::stream::Frame;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use target::{Session, Target};

const HELP: &str = include_str!("help.txt");

/// What the demo agent is told: deltas as fast as it can, a command, and text that is no ASCII.
const DEMO_PROMPT: &str = "slow 20 2\nflood 2000 60\nrun seq 20\nplan a; b\nsay ü€😀";

struct Options {
    base_url: String,
    provider: String,
    prompt: String,
    remember: Option<PathBuf>,
    recall: Option<PathBuf>,
    patience: Duration,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help") {
        say(HELP.trim_end());
        return ExitCode::SUCCESS;
    }
    let token = std::env::var("GG_RUNTIME_TOKEN").unwrap_or_default();
    let parsed = parse(&arguments).and_then(|options| {
        let target = Target::new(&options.base_url, &token, options.patience)?;
        Ok((options, target))
    });
    let (options, target) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // A closed stderr has no reader to miss it.
            drop(writeln!(io::stderr(), "conformance: {error}; --help tells more"));
            return ExitCode::from(2);
        }
    };
    // A check tells by a panic; what it says is shown with its name, once.
    std::panic::set_hook(Box::new(|_| {}));
    let failures = match &options.recall {
        Some(file) => recall(&target, file),
        None => run(&target, &options),
    };
    match failures {
        0 => say("all promises are kept"),
        count => say(&format!("{count} are NOT kept")),
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        base_url: String::new(),
        provider: "demo".to_owned(),
        prompt: DEMO_PROMPT.to_owned(),
        remember: None,
        recall: None,
        patience: Duration::from_secs(120),
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value =
            || rest.next().cloned().ok_or_else(|| format!("{argument} needs a value behind it"));
        match argument.as_str() {
            "--provider" => options.provider = value()?,
            "--prompt" => options.prompt = value()?,
            "--remember" => options.remember = Some(value()?.into()),
            "--patience" => options.patience = seconds(&value()?)?,
            "--recall" => options.recall = Some(value()?.into()),
            other if other.starts_with('-') => return Err(format!("there is no option {other}")),
            url if options.base_url.is_empty() => options.base_url = url.to_owned(),
            other => return Err(format!("{other} is one argument too many")),
        }
    }
    if options.base_url.is_empty() {
        return Err("BASE_URL is missing".to_owned());
    }
    Ok(options)
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(secs @ 1..=86_400) => Ok(Duration::from_secs(secs)),
        _ => Err(format!("--patience takes seconds from 1 to 86400, not {text:?}")),
    }
}

/// Makes a log and looks at it in every way. Gives how many checks failed.
fn run(target: &Target, options: &Options) -> usize {
    let mut session = None;
    let made = attempt("a session with two turns is read live, by one log and by all", || {
        session = Some(target.session(&options.provider, &options.prompt));
    });
    let Some(session) = session else { return 1 };
    let mut failures = usize::from(!made);
    for (name, check) in check::ALL {
        failures += usize::from(!attempt(name, || check(target, &session)));
    }
    let is_kept = options.remember.is_some();
    if let Some(file) = &options.remember {
        let text = remembered(&session);
        failures += usize::from(!attempt("what was seen is written down", || {
            std::fs::write(file, text)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }));
    }
    if !is_kept {
        failures += usize::from(!attempt("the session goes, with its log", || {
            target.purge(&session);
        }));
    }
    failures
}

fn remembered(session: &Session) -> String {
    let mut text = json!({"session_id": session.id}).to_string();
    for frame in &session.live {
        let line = json!({"id": frame.id, "event": frame.event, "data": frame.data});
        write!(text, "\n{line}").expect("a string takes any text");
    }
    text
}

fn recall(target: &Target, file: &std::path::Path) -> usize {
    let mut remembered = None;
    let is_read = attempt("what was seen before is read", || {
        remembered = Some(read(file));
    });
    let Some((id, live)) = remembered else { return 1 };
    let checks: [(&str, Recall); 2] = [
        ("what was seen before is seen again, byte for byte", check::is_replayed),
        ("from every cursor of before the rest is the same", check::goes_on_from_cursors),
    ];
    let failed = checks.iter().filter(|(name, check)| !attempt(name, || check(target, &id, &live)));
    failed.count() + usize::from(!is_read)
}

/// Looks at a session, by its id, for what was seen of it.
type Recall = fn(&Target, &str, &[Frame]);

/// What [`remembered`] has written: the session, and its frames.
fn read(file: &std::path::Path) -> (String, Vec<Frame>) {
    let text =
        std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut lines = text.lines().map(|line| -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    });
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let id = word(&lines.next().expect("the file is not empty")["session_id"]);
    let frame = |line: Value| Frame {
        id: line["id"].as_str().map(str::to_owned),
        event: word(&line["event"]),
        data: word(&line["data"]),
    };
    (id, lines.map(frame).collect())
}

/// Runs a check and tells what came of it.
fn attempt(name: &str, check: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(check)) {
        Ok(()) => {
            say(&format!("ok    {name}"));
            true
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            say(&format!("FAIL  {name}\n      {}", text.unwrap_or("it says nothing")));
            false
        }
    }
}

fn say(line: &str) {
    // A closed stdout has no reader to miss it.
    drop(writeln!(io::stdout(), "{line}"));
}
