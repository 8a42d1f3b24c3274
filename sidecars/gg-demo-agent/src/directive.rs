//! The words of a prompt.
//!
//! Owns: the shape of each directive. A line whose first word is not a directive, or whose rest does not have the shape
//! of one, is no directive: so "history of Rome" and "slow down, please" are talk. This file deliberately does nothing.

use serde_json::Value;
use std::time::Duration;

/// The size of a flood's chunks when the prompt names none, in bytes.
const FLOOD_BYTES: usize = 40;

/// The largest text that one directive makes, in bytes: beyond it a line is no directive.
const TEXT_BYTES_MAX: usize = 256 << 20;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Directive {
    Say(String),
    Think(String),
    Plan(Vec<String>),
    Run(String),
    Write { path: String, text: String },
    Read(String),
    Save { path: String, text: String },
    Terminal(String),
    Ask(String),
    Slow { count: u64, pause: Duration },
    Flood { count: u64, bytes: usize },
    Instant,
    Fail { code: i64, message: String },
    Refuse,
    MaxTokens,
    Crash,
    Hang,
    IgnoreCancel { count: u64, pause: Duration },
    Garbage,
    Stderr(u64),
    LongLine(usize),
    Spawn(String),
    Mcp { server: String, tool: String, arguments: Value },
    History,
    Env(String),
    Image,
    Late(String),
}

/// The directives of a prompt, in order. Empty when the text has none.
pub(crate) fn parse(text: &str) -> Vec<Directive> {
    text.lines().filter_map(|line| parse_line(line.trim())).collect()
}

fn parse_line(line: &str) -> Option<Directive> {
    let (word, rest) = first_word(line);
    let text = || (!rest.is_empty()).then(|| rest.to_owned());
    let alone = |directive| rest.is_empty().then_some(directive);
    match word.to_ascii_lowercase().as_str() {
        "say" => text().map(Directive::Say),
        "think" => text().map(Directive::Think),
        "plan" => plan(rest),
        "run" => text().map(Directive::Run),
        "write" => path_and_text(rest).map(|(path, text)| Directive::Write { path, text }),
        "save" => path_and_text(rest).map(|(path, text)| Directive::Save { path, text }),
        "read" => text().filter(|path| !path.contains(' ')).map(Directive::Read),
        "terminal" => text().map(Directive::Terminal),
        "ask" => text().map(Directive::Ask),
        "slow" => count_and_pause(rest).map(|(count, pause)| Directive::Slow { count, pause }),
        "ignorecancel" => {
            count_and_pause(rest).map(|(count, pause)| Directive::IgnoreCancel { count, pause })
        }
        "flood" => flood(rest),
        "instant" => alone(Directive::Instant),
        "fail" => text().map(|text| fail(&text)),
        "refuse" => alone(Directive::Refuse),
        "maxtokens" => alone(Directive::MaxTokens),
        "crash" => alone(Directive::Crash),
        "hang" => alone(Directive::Hang),
        "garbage" => alone(Directive::Garbage),
        "stderr" => rest.parse().ok().map(Directive::Stderr),
        "longline" => size(rest).map(Directive::LongLine),
        "spawn" => text().map(Directive::Spawn),
        "mcp" => mcp(rest),
        "history" => alone(Directive::History),
        "env" => text().filter(|name| !name.contains(' ')).map(Directive::Env),
        "image" => alone(Directive::Image),
        "late" => text().map(Directive::Late),
        _ => None,
    }
}

/// The first word, and the rest without the space around it.
fn first_word(text: &str) -> (&str, &str) {
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim()),
        None => (text, ""),
    }
}

/// A plan has a semicolon: "plan my day" is talk.
fn plan(rest: &str) -> Option<Directive> {
    let steps = rest.split(';').map(str::trim).filter(|step| !step.is_empty());
    let steps: Vec<String> = steps.map(str::to_owned).collect();
    (rest.contains(';') && !steps.is_empty()).then_some(Directive::Plan(steps))
}

fn path_and_text(rest: &str) -> Option<(String, String)> {
    let (path, text) = first_word(rest);
    (!path.is_empty()).then(|| (path.to_owned(), text.to_owned()))
}

fn count_and_pause(rest: &str) -> Option<(u64, Duration)> {
    let (count, pause) = first_word(rest);
    Some((count.parse().ok()?, Duration::from_millis(pause.parse().ok()?)))
}

fn flood(rest: &str) -> Option<Directive> {
    let (count, bytes) = first_word(rest);
    let bytes = if bytes.is_empty() { FLOOD_BYTES } else { size(bytes)? };
    Some(Directive::Flood { count: count.parse().ok()?, bytes })
}

fn size(text: &str) -> Option<usize> {
    text.parse().ok().filter(|bytes| *bytes <= TEXT_BYTES_MAX)
}

/// A negative number in front of the text is the error's code.
fn fail(text: &str) -> Directive {
    let (first, rest) = first_word(text);
    match first.parse::<i64>() {
        Ok(code) if code < 0 && !rest.is_empty() => {
            Directive::Fail { code, message: rest.to_owned() }
        }
        _ => Directive::Fail { code: crate::wire::INTERNAL_ERROR, message: text.to_owned() },
    }
}

fn mcp(rest: &str) -> Option<Directive> {
    let (server, rest) = first_word(rest);
    let (tool, arguments) = first_word(rest);
    if tool.is_empty() {
        return None;
    }
    let arguments = if arguments.is_empty() {
        Value::Object(serde_json::Map::new())
    } else {
        serde_json::from_str(arguments).ok()?
    };
    Some(Directive::Mcp { server: server.to_owned(), tool: tool.to_owned(), arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[Directive]) {
        assert_eq!(parse(text), expected, "{text:?}");
    }

    #[test]
    fn a_word_in_any_case_starts_a_directive() {
        check("SAY Hello you", &[Directive::Say("Hello you".to_owned())]);
        check("  say x  ", &[Directive::Say("x".to_owned())]);
        check("instant\n\nRefuse", &[Directive::Instant, Directive::Refuse]);
    }

    #[test]
    fn talk_is_no_directive() {
        for text in ["hello", "history of Rome", "slow down, please", "plan my day", "say", ""] {
            check(text, &[]);
        }
    }

    #[test]
    fn numbers_have_to_be_numbers() {
        check("flood 3", &[Directive::Flood { count: 3, bytes: 40 }]);
        check("flood 3 100", &[Directive::Flood { count: 3, bytes: 100 }]);
        check("flood 3 many", &[]);
        check("flood -1", &[]);
        check("longline 99999999999999", &[]);
        let pause = Duration::from_millis(20);
        check("slow 2 20", &[Directive::Slow { count: 2, pause }]);
    }

    #[test]
    fn a_failure_may_name_its_code() {
        let message = "Log in first".to_owned();
        check("fail -32000 Log in first", &[Directive::Fail { code: -32000, message }]);
        let message = "out of luck".to_owned();
        check("fail out of luck", &[Directive::Fail { code: -32603, message }]);
    }

    #[test]
    fn a_plan_has_steps_and_an_mcp_call_has_arguments() {
        check("plan a; b", &[Directive::Plan(vec!["a".to_owned(), "b".to_owned()])]);
        check("plan ;", &[]);
        let call = |arguments| Directive::Mcp {
            server: "gg".to_owned(),
            tool: "gg_ping".to_owned(),
            arguments,
        };
        check("mcp gg gg_ping", &[call(serde_json::json!({}))]);
        check("mcp gg gg_ping {\"a\": 1}", &[call(serde_json::json!({"a": 1}))]);
        check("mcp gg gg_ping {broken", &[]);
    }
}
