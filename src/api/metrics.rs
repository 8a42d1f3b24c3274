//! `GET /metrics`: the server in figures, as Prometheus reads them (text format 0.0.4).
//!
//! Owns: the names of the figures and the writing of the format. Everything is read when it is asked for, on its
//! connection's thread; nothing is kept. A figure that this system does not tell (`/proc` is missing, no descriptor is
//! left to read it with) is left out. The words of a closed list are all there, with 0 where there is nothing, so that
//! a chart has no holes.

use super::{Api, Call, reader};
use crate::error::Result;
use crate::http::{Answer, Meter, Response};
use crate::keeper;
use crate::ledger::team::{self, delivery};
use crate::ledger::{process, session, worktree};
use crate::limits;
use crate::model::team::DeliveryStatus;
use crate::model::worktree::WorktreeStatus;
use crate::model::{ProcessStatus, SessionStatus};
use crate::watchdog;
use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn metrics(api: &Api, _call: &Call) -> Result<Answer> {
    let mut page = Page::default();
    server(api, &mut page);
    threads(api, &mut page);
    connections(api, &mut page)?;
    ledger(api, &mut page);
    sessions(api, &mut page)?;
    records(api, &mut page)?;
    keepers(api, &mut page);
    let mut response = Response::text(200, page.text).header("Cache-Control", "no-store");
    // The format has a version, which plain text has not.
    response.headers.retain(|(name, _)| *name != "Content-Type");
    Ok(Answer::Whole(response.header("Content-Type", MEDIA_TYPE)))
}

fn server(api: &Api, page: &mut Page) {
    page.family("build_info", Sort::Gauge, "The version of the server, with the value 1.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let uptime = api.started.elapsed().as_secs_f64();
    page.one("uptime_seconds", Sort::Gauge, "Time since the start.", format!("{uptime:.3}"));
    let own = Own::read();
    let gauges = [
        ("memory_bytes", "Resident memory of the server, without its children.", own.memory_bytes),
        ("threads", "Threads of the server.", own.threads),
        ("descriptors", "Open file descriptors of the server.", own.descriptors),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            page.one(name, Sort::Gauge, help, value);
        }
    }
}

fn threads(api: &Api, page: &mut Page) {
    let watched = watchdog::threads(api.config.stuck_after);
    let stuck = watched.iter().filter(|thread| thread.is_stuck).count();
    let longest = watched.iter().filter_map(|thread| thread.busy).max().unwrap_or_default();
    page.one("threads_watched", Sort::Gauge, "Threads with a loop that is watched.", watched.len());
    let help = "Threads at one piece of work for longer than server.stuck_after_secs.";
    page.one("threads_stuck", Sort::Gauge, help, stuck);
    let help = "The longest time that a thread has been at its piece of work.";
    page.one("thread_busy_seconds_max", Sort::Gauge, help, longest.as_secs_f64());
}

fn connections(api: &Api, page: &mut Page) -> Result<()> {
    let counters = api.http.get().map(Meter::counters).unwrap_or_default();
    page.one("connections", Sort::Gauge, "Connections now, streams among them.", counters.open);
    let most = api.config.connections_max;
    page.one("connections_max", Sort::Gauge, "One more is refused with 503.", most);
    for (name, help, value) in [
        ("connections_accepted_total", "Connections that got a thread.", counters.accepted),
        ("connections_refused_total", "Connections that got 503.", counters.refused),
        ("accept_errors_total", "Failed calls of accept.", counters.accept_errors),
        ("requests_total", "Requests whose head was good.", counters.requests),
        ("panics_total", "Panics of connections, handlers and streams: defects.", counters.panics),
    ] {
        page.one(name, Sort::Counter, help, value);
    }
    page.family("requests_refused_total", Sort::Counter, "Requests not let in, by code.");
    for (code, count) in api.refusals.counts() {
        page.sample(&[("code", code)], count);
    }
    page.one("streams", Sort::Gauge, "Open streams.", api.streams.count());
    page.one("streams_max", Sort::Gauge, "One more is refused with 503.", api.config.streams_max);
    let help = "Positions that the slowest stream is behind the head of its log.";
    page.one("stream_lag_max", Sort::Gauge, help, reader::lag_max(api)?);
    Ok(())
}

fn ledger(api: &Api, page: &mut Page) {
    let counters = api.ledger.counters();
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let seconds = |counter: &AtomicU64| get(counter) as f64 / 1e6;
    let help = "Changes that wait for the writer.";
    page.one("writer_queue_depth", Sort::Gauge, help, api.ledger.queue_depth());
    page.one("writer_queue_max", Sort::Gauge, "Further ones wait.", limits::WRITER_QUEUE);
    for (name, help, counter) in [
        ("writer_commits_total", "Transactions.", &counters.commits),
        ("writer_jobs_total", "Changes, of which one transaction holds many.", &counters.jobs),
        ("writer_events_total", "Events that were committed.", &counters.events),
        ("writer_failed_total", "Transactions that failed.", &counters.failed),
    ] {
        page.one(name, Sort::Counter, help, get(counter));
    }
    let help = "The most changes that one transaction held.";
    page.one("writer_batch_max", Sort::Gauge, help, get(&counters.batch_max));
    let (sum, most) = (seconds(&counters.commit_us), seconds(&counters.commit_us_max));
    page.one("writer_commit_seconds_total", Sort::Counter, "Time in COMMIT.", sum);
    page.one("writer_commit_seconds_max", Sort::Gauge, "The longest COMMIT.", most);
    let tail = api.ledger.tail().facts();
    page.one("log_head", Sort::Gauge, "The row id of the last event.", tail.newest_row_id);
    page.one("tail_frames", Sort::Gauge, "Events kept in memory for streams.", tail.frames);
    page.one("tail_bytes", Sort::Gauge, "Bytes of those events.", tail.bytes);
    let help = "Scopes that a stream waits on, the whole log among them.";
    page.one("tail_watched_scopes", Sort::Gauge, help, tail.watched_scopes);
    let (bytes, wal_bytes) = api.ledger.file_bytes();
    page.one("database_bytes", Sort::Gauge, "Size of the database file.", bytes);
    page.one("database_wal_bytes", Sort::Gauge, "Size of its write-ahead log.", wal_bytes);
}

fn sessions(api: &Api, page: &mut Page) -> Result<()> {
    let counts = api.ledger.read(session::status_counts)?;
    let words = SessionStatus::ALL.iter().map(|status| status.as_str());
    page.by_status("sessions", "Sessions by status.", words, &counts);
    let help = "Sessions that have a thread.";
    page.one("session_threads", Sort::Gauge, help, api.sessions.threads());
    page.family("live_agents", Sort::Gauge, "Agent processes by provider.");
    for provider in api.config.providers.keys() {
        page.sample(&[("provider", provider)], api.sessions.live_agents(provider));
    }
    page.family("live_agents_max", Sort::Gauge, "Beyond it an idle agent is put to sleep.");
    for (name, provider) in &api.config.providers {
        page.sample(&[("provider", name)], provider.live_max);
    }
    Ok(())
}

/// What the other tables hold.
fn records(api: &Api, page: &mut Page) -> Result<()> {
    let (processes, worktrees, teams, deliveries) = api.ledger.read(|db| {
        let teams = team::counts(db)?;
        let deliveries = delivery::status_counts(db)?;
        Ok((process::status_counts(db)?, worktree::counts(db)?, teams, deliveries))
    })?;
    let words = ProcessStatus::ALL.iter().map(|status| status.as_str());
    page.by_status("processes", "Processes by status.", words, &processes);
    let most = api.config.processes.running_max;
    page.one("processes_running_max", Sort::Gauge, "Further ones wait or get 503.", most);
    let words = WorktreeStatus::ALL.iter().map(|status| status.as_str());
    page.by_status("worktrees", "Worktrees by status.", words, &worktrees.status_counts);
    let help = "Worktrees that a session works in.";
    page.one("worktree_claims", Sort::Gauge, help, worktrees.active_claim_total);
    page.one("teams", Sort::Gauge, "Teams.", teams.teams);
    let words = DeliveryStatus::ALL.iter().map(|status| status.as_str());
    page.by_status("deliveries", "Deliveries of team mail by status.", words, &deliveries);
    let help = "Panics of the dispatcher of team mail: defects.";
    page.one("dispatcher_panics_total", Sort::Counter, help, api.teams.dispatch_counts().panics);
    Ok(())
}

fn keepers(api: &Api, page: &mut Page) {
    let Ok(held) = keeper::weigh_all(&api.config.root_dir.join("keepers")) else { return };
    let processes: usize = held.iter().map(|held| held.weight.processes).sum();
    let memory_bytes: u64 = held.iter().map(|held| held.weight.memory_bytes).sum();
    let journal_bytes: u64 = held.iter().map(|held| held.journal_bytes).sum();
    page.one("keepers", Sort::Gauge, "Keepers: one for each agent and process.", held.len());
    page.one("kept_processes", Sort::Gauge, "Processes that they hold.", processes);
    page.one("kept_memory_bytes", Sort::Gauge, "Resident memory of those.", memory_bytes);
    page.one("journal_bytes", Sort::Gauge, "Their output on disk.", journal_bytes);
}

/// What this process uses; None where the system does not tell.
struct Own {
    memory_bytes: Option<u64>,
    threads: Option<u64>,
    descriptors: Option<u64>,
}

impl Own {
    fn read() -> Own {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |key: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let descriptors = std::fs::read_dir("/proc/self/fd").ok();
        Own {
            memory_bytes: number("VmRSS:").map(|kib| kib * 1024),
            threads: number("Threads:"),
            descriptors: descriptors.map(|entries| entries.count() as u64),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Sort {
    Counter,
    Gauge,
}

/// A page that is being written.
#[derive(Default)]
struct Page {
    text: String,
    /// The family whose samples follow, with its prefix.
    family: String,
}

impl Page {
    /// Begins a family. `help` is one line without a backslash.
    fn family(&mut self, name: &str, sort: Sort, help: &str) {
        let sort = match sort {
            Sort::Counter => "counter",
            Sort::Gauge => "gauge",
        };
        self.family = format!("gooselake_{name}");
        let name = &self.family;
        self.text += &format!("# HELP {name} {help}\n# TYPE {name} {sort}\n");
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text += &self.family;
        for (place, (name, word)) in labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            write!(self.text, "{before}{name}=\"{}\"", escaped(word)).expect("a string takes it");
        }
        let after = if labels.is_empty() { "" } else { "}" };
        writeln!(self.text, "{after} {value}").expect("a string takes it");
    }

    /// A family of one sample without labels.
    fn one(&mut self, name: &str, sort: Sort, help: &str, value: impl Display) {
        self.family(name, sort, help);
        self.sample(&[], value);
    }

    fn by_status(
        &mut self,
        name: &str,
        help: &str,
        words: impl Iterator<Item = &'static str>,
        counts: &[(String, i64)],
    ) {
        self.family(name, Sort::Gauge, help);
        for word in words {
            let count = counts.iter().find(|(status, _)| status == word).map_or(0, |(_, n)| *n);
            self.sample(&[("status", word)], count);
        }
    }
}

/// A label's value as the format wants it between its quotes.
fn escaped(word: &str) -> String {
    word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_holds_any_text() {
        let mut page = Page::default();
        page.family("x", Sort::Gauge, "Help.");
        page.sample(&[("a", "one \"two\"\\\n"), ("b", "ü")], 1.5);
        page.one("y_total", Sort::Counter, "More.", 7);
        let expected = concat!(
            "# HELP gooselake_x Help.\n# TYPE gooselake_x gauge\n",
            "gooselake_x{a=\"one \\\"two\\\"\\\\\\n\",b=\"ü\"} 1.5\n",
            "# HELP gooselake_y_total More.\n# TYPE gooselake_y_total counter\n",
            "gooselake_y_total 7\n",
        );
        assert_eq!(page.text, expected);
    }
}
