//! What the tests that replay recorded traffic share, whatever the dialect.
//!
//! Owns: reading a recording (one stdio line of the real program each), the text of a replay as its golden file
//! holds it, the comparison with that file (`UPDATE=1` writes it anew; read the difference before you commit it), the
//! rules that hold for the events of every adapter, and broken lines for the tests of robustness.

use super::rpc::KEPT_BYTES_MAX;
use super::{Adapter, AgentEvent, Command, Effects};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What a replay showed: one line for each command, event and line of stdin.
#[derive(Default)]
pub(super) struct Transcript {
    pub(super) text: String,
    pub(super) events: Vec<AgentEvent>,
}

impl Transcript {
    /// Writes down what came out of one step; returns the lines of stdin.
    pub(super) fn took(&mut self, out: &Effects) -> Vec<Value> {
        let lines = out.stdin.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let mut sent = Vec::new();
        for line in lines {
            // The goldens outlive our version.
            let version = concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\"");
            let shown = String::from_utf8_lossy(line).replace(version, "\"version\":\"…\"");
            writeln!(self.text, "> {shown}").unwrap();
            sent.push(serde_json::from_slice(line).expect("stdin is JSON lines"));
        }
        for event in &out.events {
            self.text.push_str(&told(event));
        }
        self.events.extend(out.events.iter().cloned());
        sent
    }
}

/// One line for an event.
fn told(event: &AgentEvent) -> String {
    let bodied = |body: &Map<String, Value>| Value::Object(body.clone()).to_string();
    let line = match event {
        AgentEvent::ItemStarted { item, item_type, body } => {
            format!("item.started {item} {} {}", item_type.as_str(), bodied(body))
        }
        AgentEvent::ItemDelta { item, field, text } => {
            format!("item.delta {item} {} {}", field.as_str(), json!(text))
        }
        AgentEvent::ItemSet { item, item_type, body } => {
            let item_type = item_type.map_or("", |item_type| item_type.as_str());
            format!("item.set {item} {item_type} {}", bodied(body))
        }
        AgentEvent::ItemCompleted { item, status, body } => {
            format!("item.completed {item} {} {}", status.as_str(), bodied(body))
        }
        AgentEvent::ApprovalAsked { key, item, title, subject, options } => {
            let item = item.as_deref().unwrap_or("-");
            let (title, options) = (json!(title), json!(options));
            format!("approval.asked {key} {item} {title} {} {options}", bodied(subject))
        }
        AgentEvent::Plan { entries } => format!("plan {}", json!(entries)),
        AgentEvent::Usage(usage) => {
            let mut usage = json!(usage);
            if let Some(usage) = usage.as_object_mut() {
                usage.retain(|name, value| !value.is_null() && name != "raw");
            }
            format!("usage {usage}")
        }
        AgentEvent::HostTakenBack { key } => format!("host taken back {key}"),
        AgentEvent::Host { key, request } => format!("host {key} {}", json!(request)),
        other => format!("{other:?}"),
    };
    format!("{line}\n")
}

/// The lines of a recording; `raw` is the message as it was on the wire, with its fields in their
/// order.
fn records(path: &Path) -> Vec<Value> {
    #[derive(serde::Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        msg: &'a RawValue,
    }
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            record["raw"] = json!(serde_json::from_str::<Raw>(line).unwrap().msg.get());
            record
        })
        .collect()
}

/// Plays a recording, process by process, and writes down what came of it.
pub(super) fn replay(path: &Path, play: impl Fn(&[Value], &mut Transcript)) -> Transcript {
    let mut transcript = Transcript::default();
    for process in records(path).chunk_by(|_, next| next["dir"] != "start") {
        if !transcript.text.is_empty() {
            transcript.text.push_str("= next process\n");
        }
        play(process, &mut transcript);
    }
    transcript
}

/// A run that was restored from its snapshot after each step must be the unbroken one.
pub(super) fn check_restart(name: &str, unbroken: &Transcript, restarted: &Transcript) {
    let difference = first_difference(&restarted.text, &unbroken.text);
    assert_eq!(difference, None, "{name}");
    assert_eq!(unbroken.events, restarted.events, "{name}");
}

/// Feeds adapters what an agent of the recording said: spoiled, cut, with a bit flipped, and as it was; then commands.
/// Nothing may panic, and what is kept of it has a bound. Returns how many lines that were.
pub(super) fn feed_broken_lines(
    path: &Path,
    dice: &mut Dice,
    adapters: &mut [Box<dyn Adapter>],
    restore: impl Fn(&Value) -> Box<dyn Adapter>,
) -> usize {
    let mut lines = 0;
    for record in records(path).iter().filter(|record| record["dir"] == "out") {
        let line = record["raw"].as_str().unwrap().to_owned();
        let mut spoiled = record["msg"].clone();
        dice.spoil(&mut spoiled);
        let spoiled = spoiled.to_string();
        let cut = dice.roll(line.len());
        let mut flipped = line.clone().into_bytes();
        let at = dice.roll(flipped.len());
        flipped[at] ^= 1 << dice.roll(8);
        for adapter in adapters.iter_mut() {
            let mut out = Effects::default();
            let said = [spoiled.as_bytes(), &line.as_bytes()[..cut], &flipped, line.as_bytes()];
            for line in said {
                adapter.line(line, &mut out);
            }
            for event in &out.events {
                if let AgentEvent::Unparsed { text } = event {
                    assert!(text.len() <= KEPT_BYTES_MAX + 8);
                }
            }
            lines += said.len();
        }
    }
    for adapter in adapters {
        let snapshot = serde_json::from_str(&adapter.snapshot()).unwrap();
        let mut restored = restore(&snapshot);
        for command in [Command::Interrupt, Command::EndAgentTurn, Command::Close] {
            restored.command(command, &mut Effects::default());
        }
    }
    lines
}

/// The text of each replay must be that of the golden file beside its recording.
pub(super) fn check_goldens(replays: impl Iterator<Item = (String, PathBuf, String)>) {
    let is_updating = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for (name, path, found) in replays {
        let golden = path.with_extension("events.txt");
        if is_updating {
            std::fs::write(&golden, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if let Some((at, (found, expected))) = first_difference(&found, &expected) {
            wrong.push(format!("{name} line {at}:\n  got  {found}\n  want {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ (UPDATE=1 rewrites)\n{}", wrong.len(), wrong.join("\n"));
}

fn first_difference<'a>(a: &'a str, b: &'a str) -> Option<(usize, (&'a str, &'a str))> {
    let (mut a, mut b) = (a.lines(), b.lines());
    for at in 1.. {
        match (a.next(), b.next()) {
            (None, None) => return None,
            (a, b) if a == b => {}
            (a, b) => return Some((at, (a.unwrap_or("nothing"), b.unwrap_or("nothing")))),
        }
    }
    None
}

/// Each item is started once, and ended in its turn unless it goes on behind it; nothing is told of one that is not
/// open; everything was understood.
pub(super) fn check_items(name: &str, events: &[AgentEvent]) {
    let mut open = Vec::new();
    let mut asked = Vec::new();
    let mut behind = Vec::new();
    for event in events {
        match event {
            AgentEvent::Opened { .. } => {
                // Another process: what the killed one left open is the session thread's.
                open.clear();
                behind.clear();
                asked.clear();
            }
            AgentEvent::ItemStarted { item, .. } => {
                assert!(!open.contains(item), "{name}: {item} twice");
                open.push(item.clone());
            }
            AgentEvent::ItemDelta { item, .. } | AgentEvent::ItemSet { item, .. } => {
                assert!(open.contains(item), "{name}: {item} is not open");
            }
            AgentEvent::ItemGoesOn { item } => {
                assert!(open.contains(item), "{name}: {item} is not open");
                open.retain(|known| known != item);
                behind.push(item.clone());
            }
            AgentEvent::ItemCompleted { item, .. } => {
                let is_open = open.contains(item) || behind.contains(item);
                assert!(is_open, "{name}: {item} is not open");
                open.retain(|known| known != item);
                behind.retain(|known| known != item);
            }
            AgentEvent::ApprovalAsked { key, .. } => asked.push(key.clone()),
            AgentEvent::ApprovalWithdrawn { key, .. } => {
                assert!(asked.contains(key), "{name}: {key} was not asked");
            }
            AgentEvent::TurnEnded { .. } => {
                assert!(open.is_empty(), "{name}: {open:?} left open");
            }
            AgentEvent::Unparsed { text } => {
                panic!("{name}: not understood: {text}");
            }
            _ => {}
        }
    }
}

/// A small generator of numbers that is the same on every machine.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides).unwrap()).unwrap()
    }

    fn garbage(&mut self) -> Value {
        let deep = (0..60).fold(json!(0), |inner, _| json!([inner]));
        let values = [
            json!(null),
            json!(true),
            json!(-1),
            json!(1e300),
            json!(u64::MAX),
            json!(""),
            json!("é\u{0}```\n[MODE_UPDATE] "),
            json!("completed"),
            json!([]),
            json!({}),
            json!([{"type": "diff"}, 1, null, {"type": "content", "content": {"type": "text"}}]),
            json!({"type": "text", "text": 1}),
            deep,
        ];
        values[self.roll(values.len())].clone()
    }

    /// Puts garbage into a few fields of the value.
    fn spoil(&mut self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                let names: Vec<String> = fields.keys().cloned().collect();
                for name in names {
                    match self.roll(12) {
                        0 => drop(fields.insert(name, self.garbage())),
                        1 => drop(fields.remove(&name)),
                        _ => fields.get_mut(&name).into_iter().for_each(|inner| self.spoil(inner)),
                    }
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|inner| self.spoil(inner)),
            _ => {}
        }
    }
}
