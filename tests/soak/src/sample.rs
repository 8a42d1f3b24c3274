//! Looks at the server from outside, each ten seconds, and what they draw.
//!
//! Owns: the samples, their table (CSV) and their picture (SVG). It asks the server nothing: memory, threads,
//! descriptors and CPU time come from `/proc`, sizes from the folder.

use crate::load::{Board, Counts};
use gooselake_harness::plot::{self, Line, Panel};
use gooselake_harness::proc;
use gooselake_harness::server::Server;
use gooselake_harness::wait;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_secs(10);

const MIB: f64 = 1024.0 * 1024.0;

/// What one look saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) hours: f64,
    pub(crate) rss_mib: f64,
    pub(crate) private_mib: f64,
    pub(crate) descriptors: f64,
    pub(crate) threads: f64,
    pub(crate) wal_mib: f64,
    pub(crate) database_mib: f64,
    /// Pages of the database that are not free, as its last checkpoint left them: the file keeps the room of its
    /// fullest moment.
    pub(crate) used_mib: f64,
    /// All else in the data folder: journals of live children, logs of processes.
    pub(crate) files_mib: f64,
    pub(crate) keepers: f64,
    /// Proportional memory of a keeper, on average.
    pub(crate) keeper_kib: f64,
    /// Of one CPU, since the sample before.
    pub(crate) cpu_percent: f64,
    pub(crate) sessions: f64,
    pub(crate) streams: f64,
    /// Client's view, since the sample before.
    pub(crate) events_per_s: f64,
}

/// A column: its name, and where it is in a sample.
pub(crate) type Column = (&'static str, fn(&Sample) -> f64);

pub(crate) const COLUMNS: &[Column] = &[
    ("rss_mib", |sample| sample.rss_mib),
    ("private_mib", |sample| sample.private_mib),
    ("descriptors", |sample| sample.descriptors),
    ("threads", |sample| sample.threads),
    ("wal_mib", |sample| sample.wal_mib),
    ("database_mib", |sample| sample.database_mib),
    ("used_mib", |sample| sample.used_mib),
    ("files_mib", |sample| sample.files_mib),
    ("keepers", |sample| sample.keepers),
    ("keeper_kib", |sample| sample.keeper_kib),
    ("cpu_percent", |sample| sample.cpu_percent),
    ("sessions", |sample| sample.sessions),
    ("streams", |sample| sample.streams),
    ("events_per_s", |sample| sample.events_per_s),
];

pub(crate) struct Sampler {
    begun: Instant,
    next: Instant,
    samples: Vec<Sample>,
    before: (Instant, u64, u64),
    totals: String,
}

impl Sampler {
    pub(crate) fn new(server: &Server, begun: Instant) -> Sampler {
        let before = (begun, proc::cpu_ms(server.pid()), 0);
        Sampler { begun, next: begun + STEP, samples: Vec::new(), before, totals: String::new() }
    }

    /// Waits for the time of the next sample; false when it lies behind the end.
    pub(crate) fn wait_next(&mut self, end: Instant) -> bool {
        if self.next > end {
            return false;
        }
        wait::pause(self.next.saturating_duration_since(Instant::now()));
        self.next += STEP;
        true
    }

    /// Looks, and gives a line about it.
    pub(crate) fn take(&mut self, server: &Server, board: &Board) -> String {
        let now = Instant::now();
        let (pid, counts) = (server.pid(), &board.counts);
        let (before, cpu_before, events_before) = self.before;
        let (cpu, events) = (proc::cpu_ms(pid), Counts::get(&counts.events));
        self.before = (now, cpu, events);
        let secs = (now - before).as_secs_f64();
        let memory = proc::memory(pid);
        let keepers = proc::keepers_of(server.data_dir());
        let kept: u64 = keepers.iter().map(|pid| proc::memory(*pid).pss_kib).sum();
        let wal = size(&server.data_dir().join("runtime.sqlite3-wal"));
        let database_path = server.data_dir().join("runtime.sqlite3");
        let database = size(&database_path);
        let all = folder_bytes(server.data_dir());
        let sample = Sample {
            hours: (now - self.begun).as_secs_f64() / 3600.0,
            rss_mib: memory.rss_kib as f64 / 1024.0,
            private_mib: memory.private_kib as f64 / 1024.0,
            descriptors: proc::descriptor_count(pid) as f64,
            threads: proc::thread_count(pid) as f64,
            wal_mib: wal as f64 / MIB,
            database_mib: database as f64 / MIB,
            used_mib: used_bytes(&database_path) as f64 / MIB,
            files_mib: all.saturating_sub(wal + database) as f64 / MIB,
            keepers: keepers.len() as f64,
            keeper_kib: kept as f64 / keepers.len().max(1) as f64,
            cpu_percent: cpu.saturating_sub(cpu_before) as f64 / secs / 10.0,
            sessions: board.session_count() as f64,
            streams: Counts::get(&counts.open_streams) as f64,
            events_per_s: (events - events_before) as f64 / secs,
        };
        self.samples.push(sample);
        self.totals = format!(
            "{} sessions, {} turns, {} sleeps of agents, {} streams opened, {} events read, \
             {} processes, {} messages",
            Counts::get(&counts.sessions),
            Counts::get(&counts.turns),
            Counts::get(&counts.sleeps),
            Counts::get(&counts.streams),
            events,
            Counts::get(&counts.processes),
            Counts::get(&counts.messages),
        );
        let told: Vec<String> =
            COLUMNS.iter().map(|(name, of)| format!("{name} {:.1}", of(&sample))).collect();
        let minutes = sample.hours * 60.0;
        format!("{minutes:5.1} min  {}  failed {}", told.join("  "), board.failed_count())
    }

    pub(crate) fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// What the load has done by the last look.
    pub(crate) fn totals(&self) -> String {
        self.totals.clone()
    }

    /// The table and the picture, as `soak.csv` and `soak.svg`.
    pub(crate) fn write(&self, folder: &Path, minutes: u64) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        let mut table = format!("minutes,{}\n", names.join(","));
        for sample in &self.samples {
            let row: Vec<String> =
                COLUMNS.iter().map(|(_, of)| format!("{:.2}", of(sample))).collect();
            table += &format!("{:.2},{}\n", sample.hours * 60.0, row.join(","));
        }
        fs::write(folder.join("soak.csv"), table)?;
        let title =
            format!("Soak of {minutes} minutes: 50 sessions, 200 streams ({})", self.totals);
        fs::write(folder.join("soak.svg"), plot::svg(&title, &self.panels(), 2))
    }

    fn panels(&self) -> Vec<Panel> {
        type Drawn = (&'static str, &'static [&'static str]);
        let all: [Drawn; 8] = [
            ("memory of the server, MiB", &["rss_mib", "private_mib"]),
            ("threads and descriptors of the server", &["threads", "descriptors"]),
            ("WAL, MiB", &["wal_mib"]),
            ("data folder, MiB", &["database_mib", "used_mib", "files_mib"]),
            ("keepers, sessions, streams", &["keepers", "sessions", "streams"]),
            ("memory of one keeper (PSS), KiB", &["keeper_kib"]),
            ("CPU of the server, % of one", &["cpu_percent"]),
            ("events read by clients, /s", &["events_per_s"]),
        ];
        all.iter().map(|(title, names)| self.panel(title, names)).collect()
    }

    fn panel(&self, title: &str, names: &[&str]) -> Panel {
        let lines = COLUMNS.iter().filter(|(name, _)| names.contains(name)).map(|(name, of)| {
            let points = self.samples.iter().map(|sample| (sample.hours * 60.0, of(sample)));
            Line { name: (*name).to_owned(), points: points.collect(), has_marks: false }
        });
        Panel {
            title: title.to_owned(),
            across: "minutes".to_owned(),
            lines: lines.collect(),
            is_log: false,
        }
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// What is not free in a database, by its header (SQLite's file format, 1.3): the bytes of a page at 16, all pages at
/// 28, free ones at 36.
fn used_bytes(database: &Path) -> u64 {
    let mut header = [0; 40];
    let read = fs::File::open(database).and_then(|mut file| file.read_exact(&mut header));
    if read.is_err() {
        return 0;
    }
    let number = |at: usize, length: usize| {
        header[at..at + length].iter().fold(0, |number: u64, byte| (number << 8) | u64::from(*byte))
    };
    number(16, 2) * number(28, 4).saturating_sub(number(36, 4))
}

/// All files below; what goes while it is counted counts nothing.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => folder_bytes(&entry.path()),
        Ok(kind) if kind.is_file() => size(&entry.path()),
        _ => 0,
    });
    bytes.sum()
}
