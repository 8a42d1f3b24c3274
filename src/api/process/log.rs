//! The logs of a process: their first and last lines, any part of them, or what comes until the end.
//!
//! Parts are read and bounded by [`Processes::excerpts`]; a log that is followed is copied in blocks on the thread of
//! its connection, which sleeps on the process's events in between. Bytes that are no UTF-8 are replaced, never left
//! out, and a character that a block cuts in two is told whole with the next one.

use super::owned;
use crate::api::reader::{Place, Reads};
use crate::api::{Api, Call, json};
use crate::error::{Error, Result};
use crate::http::{Answer, Response, StreamHead, StreamWriter};
use crate::keeper::Stream;
use crate::ledger::process::{self as rows, ProcessRow};
use crate::ledger::tail::Woken;
use crate::ledger::{event, to_json};
use crate::model::ScopeKind;
use crate::process::log::{last_lines, open_character, read_from};
use crate::process::{Excerpt, ExcerptRequest, Processes, end};
use serde_json::json;
use std::io;
use std::time::{Duration, Instant};

/// How much of a followed log is read at once.
const BLOCK: u64 = 64 * 1024;
pub(crate) fn logs(api: &Api, call: &Call) -> Result<Answer> {
    let row = owned(api, call)?;
    let wanted = wanted(call)?;
    let is_text = call.one_of("format", &["json", "text"])? == Some("text");
    if call.is_on("follow", false)? {
        return follow(api, call, wanted, is_text, &row);
    }
    let chunks = api.processes.excerpts(&row, &wanted)?;
    if is_text {
        let text: String = chunks.iter().filter_map(|chunk| chunk["content"].as_str()).collect();
        let response = Response::text(200, text).header("Cache-Control", "no-store");
        return Ok(Answer::Whole(response));
    }
    Ok(json(200, to_json(&chunks)))
}

fn wanted(call: &Call) -> Result<Excerpt> {
    let name = call.one_of("stream", &Stream::ALL.map(Stream::as_str))?;
    let count = |name: &str| -> Result<Option<u64>> {
        call.number(name)?
            .map(|number| {
                u64::try_from(number).map_err(|_| {
                    Error::bad_request(format!("{name} is {number}; it can not be negative"))
                })
            })
            .transpose()
    };
    ExcerptRequest {
        stream: Stream::ALL.into_iter().find(|stream| Some(stream.as_str()) == name),
        head_lines: count("head_lines")?,
        tail_lines: count("tail_lines")?,
        offset: count("offset")?,
        bytes_max: count("max_bytes")?,
    }
    .checked()
}

/// A log that is followed: where each stream has got to.
struct Follow {
    ledger: crate::ledger::Ledger,
    processes: Processes,
    process_id: String,
    scope_key: i64,
    streams: Vec<(Stream, u64)>,
    is_text: bool,
    heartbeat: Duration,
}

fn follow(
    api: &Api,
    call: &Call,
    wanted: Excerpt,
    is_text: bool,
    row: &ProcessRow,
) -> Result<Answer> {
    let place = Place::take(api, call, Reads::Output, 0)?;
    let process_id = call.part(0).to_owned();
    let scope_key =
        api.ledger.read(|db| Ok(event::scope_key(db, ScopeKind::Process, &process_id)?))?;
    let mut streams = Vec::new();
    for stream in wanted.streams {
        let path = api.processes.log_path(&process_id, stream);
        let start = match wanted.offset {
            Some(offset) => offset,
            None => last_lines(&path, end(row, stream), wanted.tail_lines, wanted.bytes_max)
                .map_err(|error| {
                    Error::internal(format!("the log {} can not be read", path.display()))
                        .source(error)
                })?,
        };
        streams.push((stream, start));
    }
    let mut follow = Follow {
        ledger: api.ledger.clone(),
        processes: api.processes.clone(),
        process_id,
        scope_key,
        streams,
        is_text,
        heartbeat: api.config.heartbeat,
    };
    let media_type = if is_text { "text/plain; charset=utf-8" } else { "application/x-ndjson" };
    let head = StreamHead {
        status: 200,
        headers: vec![
            ("Content-Type", media_type.to_owned()),
            ("Cache-Control", "no-store".to_owned()),
            ("X-Accel-Buffering", "no".to_owned()),
        ],
    };
    let run = move |writer: &mut StreamWriter| {
        let _place = place;
        if let Err(error) = follow.run(writer) {
            ::log::debug!("a followed log ended: {error}");
        }
    };
    Ok(Answer::Stream(head, Box::new(run)))
}

impl Follow {
    fn run(&mut self, writer: &mut StreamWriter) -> io::Result<()> {
        let tail = std::sync::Arc::clone(self.ledger.tail());
        let watch = tail.watch(Some(self.scope_key));
        loop {
            let row_id = tail.newest_row_id();
            let process_id = &self.process_id;
            let row = self.ledger.read(|db| rows::get(db, process_id)).map_err(io::Error::other)?;
            self.copy(&row, writer)?;
            if row.status.is_terminal() {
                return self.tell_end(&row, writer);
            }
            let ask_at = writer.active_at() + self.heartbeat;
            let woken = watch.wait(row_id, ask_at.saturating_duration_since(Instant::now()));
            // Asked also when there is news all the time: it may be of another stream.
            let is_gone = ask_at <= Instant::now() && writer.is_client_gone();
            if woken == Woken::Closing || is_gone {
                return Ok(());
            }
        }
    }

    fn copy(&mut self, row: &ProcessRow, writer: &mut StreamWriter) -> io::Result<()> {
        for (stream, at) in &mut self.streams {
            let path = self.processes.log_path(&row.process_id, *stream);
            let end = end(row, *stream);
            loop {
                let mut bytes = read_from(&path, end, *at, BLOCK)?;
                if *at + (bytes.len() as u64) < end || !row.status.is_terminal() {
                    bytes.truncate(bytes.len() - open_character(&bytes));
                }
                if bytes.is_empty() {
                    break;
                }
                let content = String::from_utf8_lossy(&bytes);
                if self.is_text {
                    writer.write_all(content.as_bytes())?;
                } else {
                    let chunk = json!({
                        "process_id": row.process_id, "stream": stream.as_str(),
                        "offset": *at, "content": content,
                    });
                    writer.write_all(format!("{chunk}\n").as_bytes())?;
                }
                *at += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// The last line of NDJSON; text says nothing that the process has not said.
    fn tell_end(&self, row: &ProcessRow, writer: &mut StreamWriter) -> io::Result<()> {
        if self.is_text {
            return Ok(());
        }
        let end = json!({
            "process_id": row.process_id, "status": row.status, "exit_code": row.exit_code,
            "signal": row.signal,
        });
        writer.write_all(format!("{end}\n").as_bytes())
    }
}
