//! The shell around the translator: pipes, processes, time.
//!
//! Owns: the main loop, on the main thread, and everything that it acts on. It waits in one place, for the next event
//! or the next alarm. Lines of the client come from a thread that reads stdin; each program has threads of its own
//! (`child`). Writing to the client blocks as long as the client does not read: it holds everybody back, on purpose.
//! Writing to a program never blocks. Promises: when the client closes stdin, or the bridge is told to end, every
//! program is interrupted and ended, within a bounded time.

use crate::bridge::{Bridge, Effect};
use crate::child::{self, Child, Program};
use crate::line::{self, Line};
use crate::thread::spawn;
use crate::wire;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

/// Events that may wait; whoever has more to tell waits.
const EVENTS_MAX: usize = 64;
/// For all programs to end when the bridge ends.
const SHUTDOWN_TIME: Duration = Duration::from_millis(4500);

enum Event {
    /// A line of the client.
    Client(Vec<u8>),
    /// A line of the client was too long to be read.
    TooLong,
    /// The client is gone, or the bridge was told to end.
    Stop,
    /// Something of the process with this number.
    Child { session: String, number: u64, event: child::Event },
}

/// One program that runs.
struct Running {
    /// Tells processes of one session apart.
    number: u64,
    /// None once its end was asked for.
    child: Option<Child>,
}

struct Shell {
    program: Program,
    bridge: Bridge,
    running: HashMap<String, Running>,
    last_number: u64,
    alarms: Vec<(Instant, String, String)>,
    tell: SyncSender<Event>,
}

/// Serves the client on stdin and stdout until it goes. Errors: there are no threads or pipes to serve it with.
pub fn run(program: Program) -> io::Result<()> {
    child::become_reaper();
    let (tell, events) = mpsc::sync_channel(EVENTS_MAX);
    listen(&tell)?;
    let mut shell = Shell {
        bridge: Bridge::new(can_bypass(), Box::new(fresh_id)),
        program,
        running: HashMap::new(),
        last_number: 0,
        alarms: Vec::new(),
        tell,
    };
    shell.serve(&events);
    shell.shut_down(&events);
    Ok(())
}

/// Starts the threads that wait for the client and for signals.
fn listen(tell: &SyncSender<Event>) -> io::Result<()> {
    let lines = tell.clone();
    spawn("client", move || {
        let mut input = BufReader::new(io::stdin());
        loop {
            let (event, is_last) = match line::next(&mut input) {
                Line::Whole(line) => (Event::Client(line), false),
                Line::TooLong => (Event::TooLong, false),
                Line::End => (Event::Stop, true),
            };
            if lines.send(event).is_err() || is_last {
                return;
            }
        }
    })?;
    let (mut end, pipe) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, pipe.try_clone()?)?;
    }
    let stop = tell.clone();
    spawn("signals", move || {
        let mut byte = [0];
        if end.read(&mut byte).is_ok() {
            let _is_heard = stop.send(Event::Stop).is_ok();
        }
    })
}

/// The program refuses its mode without questions as root, unless it is told that the machine is a sandbox.
fn can_bypass() -> bool {
    !rustix::process::geteuid().is_root() || std::env::var("IS_SANDBOX").is_ok_and(|v| v == "1")
}

/// A UUID from the kernel.
fn fresh_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    id.trim().to_owned()
}

impl Shell {
    fn serve(&mut self, events: &Receiver<Event>) {
        loop {
            let mut effects = Vec::new();
            match self.next(events) {
                None => self.ring(&mut effects),
                Some(Event::Stop) => return,
                Some(event) => self.take(event, &mut effects),
            }
            if self.act(effects).is_err() {
                return;
            }
        }
    }

    /// The next event; None when an alarm is due.
    fn next(&self, events: &Receiver<Event>) -> Option<Event> {
        let first = self.alarms.iter().map(|(due, ..)| *due).min();
        let Some(due) = first else { return Some(events.recv().unwrap_or(Event::Stop)) };
        match events.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Event::Stop),
        }
    }

    fn ring(&mut self, effects: &mut Vec<Effect>) {
        let now = Instant::now();
        let due = self.alarms.extract_if(.., |(due, ..)| *due <= now).collect::<Vec<_>>();
        for (_, session, key) in due {
            self.bridge.alarm(&session, &key, effects);
        }
    }

    fn take(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Client(line) => self.bridge.client_line(&line, effects),
            Event::TooLong => self.bridge.client_line(b"too long", effects),
            Event::Stop => {}
            Event::Child { session, number, event } => {
                let is_current = self.running.get(&session).is_some_and(|r| r.number == number);
                if !is_current {
                    return;
                }
                match event {
                    child::Event::Line(line) => self.bridge.claude_line(&session, &line, effects),
                    child::Event::TooLong => {
                        self.bridge.claude_line(&session, b"(a line too long to read)", effects);
                    }
                    child::Event::Ended { status, stderr } => {
                        self.running.remove(&session);
                        self.alarms.retain(|(_, of, _)| *of != session);
                        let how = wire::ending(status, &stderr);
                        self.bridge.claude_ended(&session, &how, effects);
                    }
                }
            }
        }
    }

    /// Does what the translator wants. Errors: the client does not read any more.
    fn act(&mut self, effects: Vec<Effect>) -> io::Result<()> {
        let mut effects = effects;
        while !effects.is_empty() {
            let mut more = Vec::new();
            let mut lines = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Client(line) => lines.extend(wire::line(&line)),
                    Effect::Claude { session, line } => self.say(&session, &line),
                    Effect::Start { session, cwd, arguments } => {
                        self.start(&session, &cwd, &arguments, &mut more);
                    }
                    Effect::End { session } => match self.running.get_mut(&session) {
                        Some(running) => drop(running.child.take()),
                        None => self.bridge.claude_ended(&session, "", &mut more),
                    },
                    Effect::Alarm { session, key, after } => {
                        self.alarms.push((Instant::now() + after, session, key));
                    }
                }
            }
            if !lines.is_empty() {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&lines)?;
                stdout.flush()?;
            }
            effects = more;
        }
        Ok(())
    }

    fn say(&mut self, session: &str, line: &serde_json::Value) {
        let Some(running) = self.running.get_mut(session) else { return };
        let is_reading = running.child.as_ref().is_none_or(|child| child.send(wire::line(line)));
        if !is_reading {
            drop(running.child.take());
        }
    }

    fn start(&mut self, session: &str, cwd: &str, arguments: &[String], effects: &mut Vec<Effect>) {
        self.last_number += 1;
        let (number, tell, of) = (self.last_number, self.tell.clone(), session.to_owned());
        let tell =
            move |event| tell.send(Event::Child { session: of.clone(), number, event }).is_ok();
        match Child::start(&self.program, arguments, cwd, session, tell) {
            Ok(child) => {
                let running = Running { number, child: Some(child) };
                self.running.insert(session.to_owned(), running);
            }
            Err(error) => {
                let path = self.program.path.display();
                let how = format!(": {path} can not be started in {cwd}: {error}");
                self.bridge.claude_ended(session, &how, effects);
            }
        }
    }

    /// Ends every program and waits for it.
    fn shut_down(&mut self, events: &Receiver<Event>) {
        let deadline = Instant::now() + SHUTDOWN_TIME;
        let mut effects = Vec::new();
        self.bridge.shut_down(&mut effects);
        // The client may be gone already; the programs hear of it all the same.
        let mut is_told = self.act(effects).is_ok();
        for running in self.running.values_mut() {
            drop(running.child.take());
        }
        while !self.running.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(event) = events.recv_timeout(left) else { return };
            let mut effects = Vec::new();
            self.take(event, &mut effects);
            if is_told {
                is_told = self.act(effects).is_ok();
            }
        }
    }
}
