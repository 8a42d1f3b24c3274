//! The misbehaviour that a client has to survive, and the flood.
//!
//! Owns: the directives that are no good agent's work: output that is no protocol, output without end, death and
//! silence. They run on the turn's thread like the others. The flood is written for speed: its lines are put together
//! by hand around a frame that was serialised once, and leave in batches.

use crate::directive::Directive;
use crate::script::{Script, chunk};
use crate::thread::spawn;
use crate::turn::{Ears, Stop};
use crate::wire;
use serde_json::json;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The size of a flood's writes: what a pipe holds, so that a write costs one call.
const BATCH_BYTES: usize = 64 << 10;

/// The time between the two halves of a line.
const HALF_LINE_PAUSE: Duration = Duration::from_millis(50);

/// How long the answer to a request that no client knows is awaited.
const UNKNOWN_ANSWER_TIME: Duration = Duration::from_secs(2);

pub(crate) fn act(script: &mut Script, directive: Directive) -> Result<(), Stop> {
    match directive {
        Directive::Flood { count, bytes } => flood(script, count, bytes),
        Directive::LongLine(bytes) => long_line(script, bytes),
        Directive::Stderr(count) => stderr(count),
        Directive::Garbage => garbage(script),
        Directive::Spawn(command) => leave_behind(script, &command),
        Directive::Crash => crash(),
        Directive::Hang => script.turn.wait(None, Ears::Deaf, |_| None::<()>).map(|_| ()),
        other => unreachable!("{other:?} is no fault"),
    }
}

fn flood(script: &mut Script, count: u64, bytes: usize) -> Result<(), Stop> {
    let id = script.agent.fresh_id("msg");
    let (head, tail) = frame(script, &id);
    let mut batch = Vec::with_capacity(BATCH_BYTES + head.len() + bytes + tail.len());
    let mut sent = 0;
    let outcome = (1..=count).try_for_each(|number| {
        batch.extend_from_slice(&head);
        push_text(&mut batch, number, bytes);
        batch.extend_from_slice(&tail);
        if batch.len() < BATCH_BYTES && number < count {
            return Ok(());
        }
        script.turn.check()?;
        script.agent.output.write(&batch)?;
        batch.clear();
        sent = number;
        Ok(())
    });
    let told = format!("[a flood of {sent} chunks of {bytes} bytes]");
    let said = bytes.saturating_mul(usize::try_from(sent).unwrap_or(usize::MAX));
    script.remember("agent_message_chunk", &told, said, &id)?;
    outcome
}

/// A chunk's text: its number, a space, and dots up to the size. The number is never cut.
fn push_text(batch: &mut Vec<u8>, number: u64, bytes: usize) {
    let start = batch.len();
    write!(batch, "{number} ").expect("memory takes any write");
    let end = batch.len().max(start + bytes);
    batch.resize(end, b'.');
}

/// What stands before and after the text in the line of a chunk.
fn frame(script: &Script, id: &str) -> (Vec<u8>, Vec<u8>) {
    const MARK: &str = "@text@";
    let update = chunk("agent_message_chunk", MARK, id);
    let line = wire::line(&wire::update(&script.session.id, &update));
    let at = line.windows(MARK.len()).position(|window| window == MARK.as_bytes());
    let at = at.expect("the mark was put in, and ids have no @");
    (line[..at].to_vec(), line[at + MARK.len()..].to_vec())
}

fn long_line(script: &mut Script, bytes: usize) -> Result<(), Stop> {
    let id = script.agent.fresh_id("msg");
    script.update(&chunk("agent_message_chunk", &"x".repeat(bytes), &id))?;
    script.remember("agent_message_chunk", &format!("[a line of {bytes} bytes]"), bytes, &id)
}

fn stderr(count: u64) -> Result<(), Stop> {
    let mut stderr = io::BufWriter::with_capacity(BATCH_BYTES, io::stderr().lock());
    for number in 1..=count {
        writeln!(stderr, "stderr line {number}")?;
    }
    Ok(stderr.flush()?)
}

fn garbage(script: &mut Script) -> Result<(), Stop> {
    let output = &script.agent.output;
    output.write(b"this is not JSON\n")?;
    let id = script.agent.fresh_id("msg");
    let whole = chunk("agent_message_chunk", "This line came in two halves. ", &id);
    let line = wire::line(&wire::update(&script.session.id, &whole));
    let turn = &script.turn;
    // A cancel is seen after the line is whole again.
    output.write_in_halves(&line, || drop(turn.pause(HALF_LINE_PAUSE, Ears::Deaf)))?;
    script.update(&json!({"sessionUpdate": "demo_unknown_update", "anything": [1, 2, 3]}))?;
    output.send(&wire::notification("_demo/unknown", json!({"anything": {"goes": true}})))?;
    let request = script.ask_client_later("_demo/unknown_request", json!({}))?;
    let take = |inbox: &mut crate::turn::Inbox| inbox.take_reply(request);
    let reply = script.turn.wait(Some(UNKNOWN_ANSWER_TIME), Ears::Open, take)?;
    match reply.map(wire::outcome) {
        Some(Err(error)) => script.say(&format!("The unknown request got error {}.", error.code)),
        Some(Ok(_)) => script.say("The unknown request got a result."),
        None => script.say("The unknown request got no answer."),
    }
}

fn leave_behind(script: &mut Script, command: &str) -> Result<(), Stop> {
    match start_left_behind(command, &script.session.cwd) {
        Ok(pid) => script.say(&format!("spawned {pid}")),
        Err(error) => script.say(&format!("not spawned: {error}")),
    }
}

/// Starts the command in a session of its own by `setsid`, or where there is none in a process group of its own.
fn start_left_behind(command: &str, cwd: &std::path::Path) -> io::Result<u32> {
    let quiet = |program: &mut Command| -> io::Result<Child> {
        program.current_dir(cwd).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        program.spawn()
    };
    // `setsid` forks only when it leads a group, and a child of ours does not: the pid is the command's.
    let mut child = match quiet(Command::new("setsid").args(["sh", "-c", command])) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            quiet(Command::new("sh").args(["-c", command]).process_group(0))?
        }
        started => started?,
    };
    let pid = child.id();
    // Reaped when it ends, if this process lives that long; left behind all the same.
    spawn("left-behind", move || drop(child.wait()))?;
    Ok(pid)
}

fn crash() -> Result<(), Stop> {
    #[allow(clippy::disallowed_methods, reason = "dying without a word is the purpose")]
    std::process::exit(1)
}
