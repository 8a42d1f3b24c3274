//! The machine's shape and load: without them no figure means anything.

use crate::report::Report;
use crate::sample::Samples;
use gooselake_harness::temp::TempDir;
use gooselake_harness::wait::pause;
use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

/// Writes whose sync is timed.
const SYNCS: usize = 200;
/// How long others are watched.
const LOOK: Duration = Duration::from_millis(500);

/// Prints the machine, and what one sync of its disk costs.
pub(crate) fn tell(report: &mut Report) {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".to_owned());
    let memory: u64 = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let profile = if cfg!(debug_assertions) { "DEBUG BUILD" } else { "release build" };
    report.line(&format!("gooselake {} benchmark, {profile}", env!("CARGO_PKG_VERSION")));
    report.line(&format!(
        "machine: {cpus} x {model}, {} MiB, Linux {}",
        memory / 1024,
        kernel.trim()
    ));
    let mut syncs = sync_times();
    report.line(&format!(
        "disk: {} ({}), one 4 KiB append with fdatasync {:.2} ms p50, {:.2} ms p99",
        std::env::temp_dir().display(),
        filesystem().unwrap_or_else(|| "unknown".to_owned()),
        syncs.percentile_ms(50),
        syncs.percentile_ms(99),
    ));
    report.line("clients, server, keepers and agents share these CPUs");
}

/// How busy all CPUs are while the benchmark does nothing, and the load average: others' work.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let average = text.split(' ').next().unwrap_or("unknown");
    let (busy, all) = cpu_ticks();
    pause(LOOK);
    let (busy, all) = (cpu_ticks().0 - busy, cpu_ticks().1 - all);
    format!("others use {:.0} % of the CPUs, load average {average}", busy / all.max(1.0) * 100.0)
}

/// Ticks of all CPUs since the boot: at work, and all.
fn cpu_ticks() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> =
        line.split_whitespace().skip(1).map(|word| word.parse().unwrap_or_default()).collect();
    let all: f64 = ticks.iter().sum();
    // The fourth and the fifth are idle, and idle with the disk at work.
    (all - ticks.iter().skip(3).take(2).sum::<f64>(), all)
}

/// Appends of 4 KiB, each with its sync.
pub(crate) fn sync_times() -> Samples {
    let folder = TempDir::new("gooselake-bench");
    let mut samples = Samples::default();
    let Ok(mut file) = fs::File::create(folder.path().join("sync")) else { return samples };
    for _ in 0..SYNCS {
        let begun = Instant::now();
        if file.write_all(&[7; 4096]).and_then(|()| file.sync_data()).is_err() {
            break;
        }
        samples.add(begun.elapsed());
    }
    samples
}

/// The value of the first line `name : value`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The kind of file system that holds the temporary files: the longest mount point above them.
fn filesystem() -> Option<String> {
    let folder = fs::canonicalize(std::env::temp_dir()).ok()?;
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(point, _)| folder.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map(|(_, kind)| kind.to_owned())
}
