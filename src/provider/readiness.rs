//! Whether a provider's agents can be used: found, new enough, logged in; and what models they offer.
//!
//! Owns: the last report for each vendor's program, and the one thread that asks it anew. A report holds while the
//! files that it depends on (the program, its logins, its configuration) are the same and it is not too old; then
//! whoever asks gets it at once and the program is asked again behind their back. Only the first one who asks, and the
//! first after a change, waits for the answer, and not for long. Nobody waits while a lock is held, and the thread of a
//! probe works without one. ACP agents and the demo agent are looked up on disk each time: that costs no more than a
//! cache.
//!
//! A probe starts short-lived programs without a keeper, each in a process group of its own that is killed at the
//! deadline (see [`command`]). It opens no session and changes no login. It deliberately knows no HTTP, and does not
//! say who may use what.

pub mod catalog;
mod claude;
mod codex;
mod command;
mod report;

pub use report::{Login, Model, Problem, ProblemKind, Report};

use crate::config::{Agent, Config, Provider};
use crate::environment;
use crate::error::{Error, Result};
use crate::model::id;
use crate::provider::claude::auth::Auth;
use crate::provider::stage::{self, Staging};
use crate::thread::{self, Thread};
use command::Ask;
use std::collections::BTreeMap;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the first answer is waited for by whoever asks.
pub const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// The longest probe; a provider's `request_timeout_secs` may be less.
const PROBE: Duration = Duration::from_secs(25);
/// After this the program is asked again.
const GOOD_FOR: Duration = Duration::from_secs(10 * 60);
/// The same where there is a problem: what mends it may show in no file.
const BAD_FOR: Duration = Duration::from_secs(30);

/// The answers, and the way to new ones; cheap to clone.
#[derive(Clone)]
pub struct Readiness {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<Config>,
    /// The command of the bridge, with arguments; empty when there is none.
    bridge: Vec<String>,
    /// For each vendor's program that is switched on.
    slots: BTreeMap<&'static str, Slot>,
    /// Its other end is closed when the server stops.
    cancelled: PipeReader,
    cancel: Mutex<Option<PipeWriter>>,
}

#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    /// A probe has ended, or the server stops.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    known: Option<Known>,
    /// Counts what changed without a file's telling.
    generation: u64,
    is_probing: bool,
    is_stopping: bool,
    probe: Option<Thread>,
}

/// A report, and what it was made of.
struct Known {
    basis: Basis,
    asked_at: Instant,
    report: Arc<Report>,
}

/// What a report depends on: two that are the same would give the same report.
#[derive(Clone, PartialEq, Eq)]
struct Basis {
    program: Option<PathBuf>,
    /// Time of change, size and number of each file; None where there is none.
    files: Vec<Option<(i64, i64, u64, u64)>>,
    generation: u64,
}

/// What a probe works with.
struct Scene<'a> {
    providers_dir: &'a Path,
    /// What the program is started with, without what only a session has.
    env: BTreeMap<String, String>,
    agent: &'a Agent,
    deadline: Instant,
    cancelled: BorrowedFd<'a>,
}

impl Scene<'_> {
    fn ask<'a>(
        &'a self,
        program: &'a Path,
        args: &'a [String],
        env: &'a BTreeMap<String, String>,
    ) -> Ask<'a> {
        let (deadline, cancelled) = (self.deadline, self.cancelled);
        Ask { program, args, env, cwd: self.providers_dir, deadline, cancelled }
    }

    /// Whether an agent could be given this variable.
    fn has_variable(&self, name: &str) -> bool {
        self.agent.env.contains_key(name) || std::env::var_os(name).is_some()
    }
}

impl Known {
    fn is_fresh(&self, now: Instant) -> bool {
        let good_for = if self.report.is_ready() { GOOD_FOR } else { BAD_FOR };
        now.saturating_duration_since(self.asked_at) < good_for
    }
}

impl Readiness {
    /// `bridge` is the command that drives Claude; a `--` at its end, behind which arguments for Claude would follow,
    /// is not for us. Errors: there is no descriptor to be had.
    pub fn new(config: Arc<Config>, mut bridge: Vec<String>) -> Result<Readiness> {
        bridge.pop_if(|last| last == "--");
        let (cancelled, cancel) = std::io::pipe()
            .map_err(|error| Error::internal("a pipe can not be made").source(error))?;
        let probed = ["claude", "codex"].into_iter();
        let slots = probed
            .filter(|name| config.providers.contains_key(name))
            .map(|name| (name, Slot::default()))
            .collect();
        let cancel = Mutex::new(Some(cancel));
        Ok(Readiness { shared: Arc::new(Shared { config, bridge, slots, cancelled, cancel }) })
    }

    /// What is known of an agent: at once when something is, else after a probe or at `deadline`. None: nothing yet.
    /// A report that is too old is given all the same, and renewed for the next one who asks.
    pub fn look(&self, provider: &str, agent: &str, deadline: Instant) -> Option<Arc<Report>> {
        let shared = &self.shared;
        let Some((name, slot)) = shared.slots.get_key_value(provider) else {
            return shared.on_disk(provider, agent).map(Arc::new);
        };
        let asked_at = Instant::now();
        let files = shared.files(name);
        if files.program.is_none() {
            // There is nobody to ask.
            return shared.on_disk(provider, agent).map(Arc::new);
        }
        let mut state = slot.lock();
        loop {
            let basis = Basis { generation: state.generation, ..files.clone() };
            if let Some(known) = &state.known {
                // One that was asked for after this call began is as new as it gets, whatever changed meanwhile.
                let is_current = known.basis == basis || known.asked_at >= asked_at;
                if is_current && (known.is_fresh(asked_at) || state.is_stopping) {
                    return Some(Arc::clone(&known.report));
                }
                if is_current {
                    let report = Arc::clone(&known.report);
                    shared.start_probe(name, &mut state, basis);
                    return Some(report);
                }
            }
            if state.is_stopping || Instant::now() >= deadline {
                shared.start_probe(name, &mut state, basis);
                return None;
            }
            shared.start_probe(name, &mut state, basis);
            let left = deadline.saturating_duration_since(Instant::now());
            state = slot
                .changed
                .wait_timeout_while(state, left, |state| state.is_probing && !state.is_stopping)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Refuses a session that would fail for certain, by what is known now; nothing is waited for. `env` is what the
    /// session brings: with a PATH or a login of its own it is not judged by ours.
    pub fn check(&self, provider: &str, agent: &str, env: &BTreeMap<String, String>) -> Result<()> {
        let Some(report) = self.look(provider, agent, Instant::now()) else { return Ok(()) };
        let Some(problem) = report.problem.as_ref().filter(|_| report.is_hopeless()) else {
            return Ok(());
        };
        let is_excused = match problem.kind {
            ProblemKind::LoginMissing => !env.is_empty(),
            _ => env.contains_key("PATH"),
        };
        if is_excused { Ok(()) } else { Err(problem.error(provider)) }
    }

    /// What was known of a provider does not hold any more.
    pub fn forget(&self, provider: &str) {
        if let Some(slot) = self.shared.slots.get(provider) {
            slot.lock().generation += 1;
        }
    }

    /// Whether a login of Codex lies where it is looked for.
    pub fn has_codex_login(&self) -> bool {
        let env = self.shared.environment("codex");
        codex::has_login_file(&self.shared.config.providers_dir, &env)
    }

    /// Ends the probes that run, and whoever waits for them, and waits for their threads until the deadline.
    pub fn shut_down(&self, deadline: Instant) {
        let mut probes = Vec::new();
        for slot in self.shared.slots.values() {
            let mut state = slot.lock();
            state.is_stopping = true;
            probes.extend(state.probe.take());
            slot.changed.notify_all();
        }
        drop(self.shared.cancel.lock().unwrap_or_else(PoisonError::into_inner).take());
        for probe in probes {
            if !probe.join_by(deadline) {
                log::warn!("a probe of an agent's program did not stop in time");
            }
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn provider(&self, name: &str) -> Option<(&Provider, &Agent)> {
        let provider = self.config.providers.get(name)?;
        Some((provider, provider.agents.get("default")?))
    }

    /// The environment of a provider's programs, without what only a session has.
    fn environment(&self, name: &str) -> BTreeMap<String, String> {
        let Some((provider, agent)) = self.provider(name) else { return BTreeMap::new() };
        let mut env = environment::passed_on(&provider.env_passthrough);
        env.extend(agent.env.clone());
        env
    }

    /// What a report on this provider would be made of now.
    fn files(&self, name: &str) -> Basis {
        let env = self.environment(name);
        let program = self.provider(name).and_then(|(_, agent)| find(agent, &env));
        let mut files: Vec<PathBuf> = program.iter().cloned().collect();
        match name {
            "codex" => files.extend(codex::watched(&self.config.providers_dir, &env)),
            _ => {
                files.extend(self.bridge.first().map(PathBuf::from));
                files.extend(Auth::of_config(&self.config).watched());
            }
        }
        let files = files.iter().map(|path| {
            let metadata = path.metadata().ok()?;
            Some((metadata.mtime(), metadata.mtime_nsec(), metadata.size(), metadata.ino()))
        });
        Basis { program, files: files.collect(), generation: 0 }
    }

    /// An agent that is asked nothing before a session: its program is there, or not.
    fn on_disk(&self, provider: &str, agent: &str) -> Option<Report> {
        let provider = self.config.providers.get(provider)?;
        let agent = provider.agents.get(agent)?;
        let mut env = environment::passed_on(&provider.env_passthrough);
        env.extend(agent.env.clone());
        let program = find(agent, &env);
        let is_there = program.is_some() || agent.command.is_none();
        let problem = (!is_there).then(|| program_missing(agent));
        Some(Report { program, problem, checked_at: id::now_ms(), ..Report::default() })
    }

    /// Starts the probe unless one runs.
    fn start_probe(self: &Arc<Self>, name: &'static str, state: &mut State, basis: Basis) {
        if state.is_probing || state.is_stopping {
            return;
        }
        // The last one has said that it is over, which is the last that it does with the lock: this does not wait.
        drop(state.probe.take());
        let (shared, of_probe) = (Arc::clone(self), basis.clone());
        match thread::spawn(format!("ready-{name}"), move || shared.run_probe(name, of_probe)) {
            Ok(probe) => {
                state.is_probing = true;
                state.probe = Some(probe);
            }
            Err(error) => {
                let message = format!("{name} can not be asked: no thread can be started: {error}");
                let problem = Problem::new(ProblemKind::NoAnswer, message, "try again");
                let report = Report { problem: Some(problem), ..Report::default() };
                let (asked_at, report) = (Instant::now(), Arc::new(report));
                state.known = Some(Known { basis, asked_at, report });
            }
        }
    }

    /// The body of the probe's thread.
    fn run_probe(&self, name: &'static str, basis: Basis) {
        /// Says that the probe is over, also when it panics.
        struct Over<'a>(&'a Slot);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.lock().is_probing = false;
                self.0.changed.notify_all();
            }
        }
        let Some(slot) = self.slots.get(name) else { return };
        let over = Over(slot);
        let asked_at = Instant::now();
        let report = match &basis.program {
            Some(program) => self.probe(name, program),
            None => Report::default(),
        };
        let mut state = slot.lock();
        let last = state.known.as_ref().and_then(|known| known.report.problem.as_ref());
        if let Some(problem) = report.problem.as_ref().filter(|problem| last != Some(*problem)) {
            log::info!("{name} is not ready: {}; {}", problem.message, problem.remedy);
        }
        if !state.is_stopping {
            state.known = Some(Known { basis, asked_at, report: Arc::new(report) });
        }
        drop(state);
        drop(over);
    }

    fn stage_claude(&self, env: &mut BTreeMap<String, String>) -> Result<()> {
        let (providers_dir, claude_auth_mode) =
            (&self.config.providers_dir, self.config.claude_auth_mode);
        let given = self.provider("claude").map(|(_, agent)| agent.env.clone()).unwrap_or_default();
        let staging =
            Staging { providers_dir, session_id: "probe", given: &given, claude_auth_mode };
        stage::stage("claude", &staging, env).map(|_arguments| ())
    }

    fn probe(&self, name: &str, program: &Path) -> Report {
        let Some((provider, agent)) = self.provider(name) else { return Report::default() };
        let mut env = environment::passed_on(&provider.env_passthrough);
        // Codex is asked in a home of its own, which is no session's (see `codex`).
        let staged = match name {
            "claude" => self.stage_claude(&mut env),
            _ => Ok(()),
        };
        env.extend(agent.env.clone());
        let scene = Scene {
            providers_dir: &self.config.providers_dir,
            env,
            agent,
            deadline: Instant::now() + provider.request_timeout.min(PROBE),
            cancelled: self.cancelled.as_fd(),
        };
        let report = match staged {
            Err(error) => Report {
                program: Some(program.to_owned()),
                problem: Some(Problem::new(ProblemKind::NoAnswer, error.message, error.hint)),
                ..Report::default()
            },
            Ok(()) if name == "codex" => codex::probe(&scene, program),
            Ok(()) => claude::probe(&scene, &self.bridge, program),
        };
        Report { checked_at: id::now_ms(), ..report }
    }
}

/// The file that an agent's command names, if it can be run.
fn find(agent: &Agent, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let path = env.get("PATH").map(String::as_str).unwrap_or_default();
    let program = environment::find_program(agent.command.as_deref()?, path)?;
    let metadata = program.metadata().ok()?;
    (metadata.is_file() && metadata.mode() & 0o111 != 0).then_some(program)
}

fn program_missing(agent: &Agent) -> Problem {
    let command = agent.command.as_deref().unwrap_or_default();
    let (what, remedy) = if command.contains('/') {
        (
            "is no program that can be run",
            "install it there, or mend the command in the configuration",
        )
    } else {
        ("is not on PATH", "install it, or give its whole path in the configuration")
    };
    Problem::new(ProblemKind::ProgramMissing, format!("the program {command:?} {what}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_asked_again_sooner() {
        let problem = Problem::new(ProblemKind::NoAnswer, "hangs", "wait");
        let known = |problem: Option<Problem>| Known {
            basis: Basis { program: None, files: Vec::new(), generation: 0 },
            asked_at: Instant::now(),
            report: Arc::new(Report { problem, ..Report::default() }),
        };
        let minute = Duration::from_secs(60);
        for (known, after, is_fresh) in [
            (known(None), minute, true),
            (known(None), 11 * minute, false),
            (known(Some(problem.clone())), minute / 4, true),
            (known(Some(problem)), minute, false),
        ] {
            assert_eq!(known.is_fresh(known.asked_at + after), is_fresh, "{after:?}");
        }
    }
}
