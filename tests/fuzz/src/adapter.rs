//! The rules of every adapter, for any lines.
//!
//! An input is a conversation: a line is one of the agent's, but for those that begin with a mark. `?` is a result and
//! `~` an error for the oldest request of the adapter that has no answer; `!` is a command of the session thread, which
//! is only given where the session thread would give it. The rules: no panic; stdin is JSON lines; each item is
//! started once, told of only while it is open, and over with its turn unless it goes on; what comes out grows no
//! faster than what went in; a snapshot restores at any place.

use gooselake::model::input::Input;
use gooselake::provider::acp::Acp;
use gooselake::provider::codex::Codex;
use gooselake::provider::{Adapter, AgentEvent, Answer, Command, Effects, HostError, Open, Steer};
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};

/// What may come out, whatever went in, and for each byte that went in. A line can end all that is open, and a change
/// is told as a text and as a difference.
const FREE_BYTES: usize = 512 * 1024;
const BYTES_PER_BYTE: usize = 64;

pub(crate) fn acp(input: &[u8]) {
    converse(input, Box::new(Acp::new()), |snapshot| Box::new(Acp::restore(snapshot).unwrap().0));
}

pub(crate) fn acp_strict(input: &[u8]) {
    let restore =
        |snapshot: &Value| -> Box<dyn Adapter> { Box::new(Acp::restore(snapshot).unwrap().0) };
    converse(input, Box::new(Acp::strict()), restore);
}

pub(crate) fn codex(input: &[u8]) {
    converse(input, Box::new(Codex::new()), |snapshot| Box::new(Codex::restore(snapshot).unwrap()));
}

type Restore = fn(&Value) -> Box<dyn Adapter>;

fn converse(input: &[u8], adapter: Box<dyn Adapter>, restore: Restore) {
    let mut conversation = Conversation {
        adapter,
        restore,
        asked: VecDeque::new(),
        approvals: Vec::new(),
        hosts: Vec::new(),
        open: BTreeSet::new(),
        behind: BTreeSet::new(),
        is_turn: false,
        is_failed: false,
        taken: 0,
        given: 0,
    };
    let resume = input.first() == Some(&b'@');
    conversation.step(|adapter, out| {
        let open = Open {
            cwd: "/srv/work".to_owned(),
            mode: resume.then(|| "plan".to_owned()),
            model: resume.then(|| "m".to_owned()),
            resume: resume.then(|| "native".to_owned()),
            client_fs: true,
            client_terminal: true,
            ..Open::default()
        };
        adapter.open(&open, out);
    });
    for line in input.split(|byte| *byte == b'\n') {
        conversation.line(line);
        if conversation.is_failed {
            // The session thread ends the agent then.
            return;
        }
    }
    conversation.command("e");
    conversation.command("c");
}

struct Conversation {
    adapter: Box<dyn Adapter>,
    restore: Restore,
    /// Ids of the adapter's requests without an answer, oldest first.
    asked: VecDeque<Value>,
    /// Keys of open approvals, each with an option.
    approvals: Vec<(String, String)>,
    hosts: Vec<String>,
    open: BTreeSet<String>,
    /// Items that go on behind the end of their turn.
    behind: BTreeSet<String>,
    is_turn: bool,
    is_failed: bool,
    taken: usize,
    given: usize,
}

impl Conversation {
    fn line(&mut self, line: &[u8]) {
        self.taken += line.len() + 1;
        let text = std::str::from_utf8(line).unwrap_or_default();
        match text.chars().next() {
            Some('!') => self.command(&text[1..]),
            Some(mark @ ('?' | '~')) => {
                let Ok(value) = serde_json::from_str::<Value>(&text[1..]) else { return };
                let Some(id) = self.asked.pop_front() else { return };
                let field = if mark == '?' { "result" } else { "error" };
                let answer = json!({"jsonrpc": "2.0", "id": id, field: value}).to_string();
                self.feed(answer.as_bytes());
            }
            _ => self.feed(line),
        }
    }

    fn feed(&mut self, line: &[u8]) {
        self.step(|adapter, out| adapter.line(line, out));
    }

    fn command(&mut self, word: &str) {
        let input = || vec![Input::Text { text: "go on".to_owned() }];
        let nth = |text: &str, length: usize| text.parse::<usize>().ok().filter(|n| *n < length);
        let (word, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        let command = match word {
            "t" if self.adapter.is_open() && !self.is_turn => {
                let setting = || Some(rest.to_owned()).filter(|text| !text.is_empty());
                self.is_turn = true;
                Command::StartTurn {
                    turn_id: "turn_1".to_owned(),
                    input: input(),
                    model: setting(),
                    mode: setting(),
                    reasoning_level: setting(),
                    permission_mode: None,
                }
            }
            "s" if self.adapter.capabilities().steer && self.is_turn => {
                Command::Steer(Steer { input: input(), mail: Vec::new() })
            }
            "i" => Command::Interrupt,
            "a" | "x" => {
                let Some(place) = nth(rest, self.approvals.len()) else { return };
                let (key, option_id) = self.approvals.remove(place);
                let answer = match word {
                    "a" => Answer::Option { option_id, message: None, payload: None },
                    _ => Answer::Cancelled,
                };
                Command::Answer { key, answer }
            }
            "h" | "f" => {
                let Some(place) = nth(rest, self.hosts.len()) else { return };
                let error = HostError { code: -32603, message: "no".to_owned() };
                let answer = if word == "h" { Ok(json!({"content": "x"})) } else { Err(error) };
                Command::HostAnswer { key: self.hosts.remove(place), answer }
            }
            "e" => Command::EndAgentTurn,
            "c" => Command::Close,
            "r" => {
                let text = self.adapter.snapshot();
                self.adapter = (self.restore)(&serde_json::from_str(&text).unwrap());
                return;
            }
            _ => return,
        };
        self.step(|adapter, out| adapter.command(command, out));
    }

    fn step(&mut self, act: impl FnOnce(&mut dyn Adapter, &mut Effects)) {
        let mut out = Effects::default();
        act(&mut *self.adapter, &mut out);
        self.given += out.stdin.len();
        assert!(out.stdin.last().is_none_or(|last| *last == b'\n'), "half a line for stdin");
        for event in &out.events {
            self.given += size(event);
            self.told(event);
        }
        let most = FREE_BYTES + BYTES_PER_BYTE * self.taken;
        assert!(self.given <= most, "{} bytes came out of {}", self.given, self.taken);
        let mut at_once = Vec::new();
        for line in out.stdin.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let sent: Value = serde_json::from_slice(line).expect("stdin is JSON lines");
            let Some(id) = sent.get("id").filter(|_| sent["method"].is_string()) else { continue };
            if sent["method"] == "_gooselake/sync" {
                // No agent knows it, and all say so at once.
                at_once.push(json!({"id": id, "error": {"code": -32601, "message": "none"}}));
            } else {
                self.asked.push_back(id.clone());
            }
        }
        for answer in at_once {
            self.feed(answer.to_string().as_bytes());
        }
    }

    fn told(&mut self, event: &AgentEvent) {
        match event {
            AgentEvent::OpenFailed { .. } => self.is_failed = true,
            AgentEvent::AgentTurnStarted => {
                assert!(!self.is_turn, "a turn of the agent's in the middle of another");
                self.is_turn = true;
            }
            AgentEvent::ItemStarted { item, .. } => {
                let is_known = self.behind.contains(item) || !self.open.insert(item.clone());
                assert!(!is_known, "{item} is started twice");
                assert!(self.is_turn, "{item} belongs to no turn");
            }
            AgentEvent::ItemDelta { item, .. } | AgentEvent::ItemSet { item, .. } => {
                let is_open = self.open.contains(item) || self.behind.contains(item);
                assert!(is_open, "{item} is told of and not open");
            }
            AgentEvent::ItemGoesOn { item } => {
                assert!(self.open.remove(item), "{item} goes on and is not open");
                self.behind.insert(item.clone());
            }
            AgentEvent::ItemCompleted { item, .. } => {
                let is_open = self.open.remove(item) || self.behind.remove(item);
                assert!(is_open, "{item} is completed and not open");
            }
            AgentEvent::ApprovalAsked { key, options, .. } => {
                let is_new = self.approvals.iter().all(|(known, _)| known != key);
                assert!(is_new, "the approval {key} is asked twice");
                let option = options.first().map(|option| option.id.clone()).unwrap_or_default();
                self.approvals.push((key.clone(), option));
            }
            AgentEvent::ApprovalWithdrawn { key, .. } => {
                self.approvals.retain(|(known, _)| known != key);
            }
            AgentEvent::Host { key, .. } => self.hosts.push(key.clone()),
            AgentEvent::TurnEnded { status, .. } => {
                assert!(status.is_terminal(), "a turn ends as {status:?}");
                assert!(self.is_turn, "a turn ends that never began");
                assert!(self.open.is_empty(), "{:?} left open by the turn", self.open);
                self.is_turn = false;
            }
            _ => {}
        }
    }
}

/// About as many bytes as the event has in the log.
fn size(event: &AgentEvent) -> usize {
    match event {
        AgentEvent::ItemDelta { text, .. } | AgentEvent::Unparsed { text } => text.len(),
        AgentEvent::ItemStarted { body, .. }
        | AgentEvent::ItemSet { body, .. }
        | AgentEvent::ItemCompleted { body, .. } => Value::Object(body.clone()).to_string().len(),
        other => format!("{other:?}").len(),
    }
}
