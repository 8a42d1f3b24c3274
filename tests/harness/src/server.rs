//! The built server, started as a user starts it.
//!
//! Owns: one server process, its data folder, its config file, and all that it leaves running. The process is started
//! with a home of its own inside the temporary folder, so that no test touches the user's. Two threads read its
//! stdout and stderr to their ends; nobody joins them, because what the server leaves running may hold the pipes.
//! When the value is dropped, the server, its keepers and all their descendants are ended, and the folder is
//! removed: whatever a test did, nothing of it stays.

use crate::client::Client;
use crate::proc::{self, Signal};
use crate::temp::TempDir;
use crate::thread::{self, Thread};
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// How long a server may take until it listens.
const START_TIME: Duration = Duration::from_secs(30);

/// How long a server may take to end after a signal.
const STOP_TIME: Duration = Duration::from_secs(30);

/// How long the stderr of a server that did not start is awaited after its end.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);

/// How long keepers have to end their trees when a test is over, before all of it is killed.
const KEEPER_TIME: Duration = Duration::from_secs(5);

/// How much of the server's stderr is kept: the end of it.
const STDERR_BYTES_MAX: usize = 4 << 20;

/// What the line of a server that listens starts with.
const LISTENING: &str = "listening on http://";

/// How to start a server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The text of the config file.
    pub config_toml: String,
    /// Where the data goes; a folder inside the temporary one when `None`. A given one is not removed.
    pub data_dir: Option<PathBuf>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// Added to the command line.
    pub args: Vec<String>,
    /// The server's program; [`program`] finds it when `None`.
    pub program: Option<PathBuf>,
}

/// A server that runs, or ran.
#[derive(Debug)]
pub struct Server {
    options: Options,
    data_dir: PathBuf,
    run: Run,
    // The last field: the folder goes when nothing uses it any more.
    folder: TempDir,
}

/// One process of the server.
#[derive(Debug)]
struct Run {
    child: Child,
    address: SocketAddr,
    stderr: Arc<Mutex<Vec<u8>>>,
    /// Set when the process was reaped.
    status: Option<ExitStatus>,
}

impl Server {
    /// Starts a server and waits until it listens. Panics: it does not; the message has its stderr.
    pub fn start(options: Options) -> Server {
        Server::try_start(options).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same. Errors: why it does not listen, with its exit status and stderr.
    pub fn try_start(options: Options) -> Result<Server, String> {
        let folder = TempDir::new("gooselake-test");
        let inside = folder.path().join("data");
        let data_dir = options.data_dir.clone().unwrap_or(inside);
        let made = fs::create_dir(folder.path().join("home"))
            .and_then(|()| fs::write(config_file(&folder), &options.config_toml));
        made.map_err(|error| format!("{}: {error}", folder.path().display()))?;
        let run = match Run::start(&options, &folder, &data_dir) {
            Ok(run) => run,
            Err(error) => {
                end_keepers(&data_dir);
                return Err(error);
            }
        };
        Ok(Server { options, data_dir, run, folder })
    }

    /// A client with the operator's token. Panics: the server has written none.
    pub fn client(&self) -> Client {
        Client::new(self.run.address, &self.token())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.run.address
    }

    /// The operator's token. Panics: the server has written none.
    pub fn token(&self) -> String {
        let path = self.data_dir.join("auth/api-token");
        let text = fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A folder for the files of the test; it goes away with the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the config file; the next start reads it.
    pub fn set_config(&mut self, config_toml: &str) {
        self.options.config_toml = config_toml.to_owned();
        let written = fs::write(config_file(&self.folder), config_toml);
        written.unwrap_or_else(|error| panic!("the config file: {error}"));
    }

    pub fn pid(&self) -> u32 {
        self.run.child.id()
    }

    /// Whether the process runs.
    pub fn is_alive(&self) -> bool {
        self.run.status.is_none() && proc::alive(self.pid())
    }

    /// Resident memory of the server alone, in KiB.
    pub fn rss_kib(&self) -> u64 {
        proc::rss_kib(self.pid())
    }

    /// What it wrote to stderr since its last start, at least the end of it.
    pub fn stderr_text(&self) -> String {
        self.run.stderr_text()
    }

    /// Panics: a thread of the server has panicked, though the server may have gone on.
    pub fn check_no_panic(&self) {
        let text = self.stderr_text();
        assert!(!text.contains("panicked at"), "a panic in the server:\n{text}");
    }

    /// Ends the server alone, as a crash would; its keepers go on.
    pub fn kill9(&mut self) {
        self.run.stop(Signal::KILL);
    }

    /// SIGTERM; waits, and gives the exit code (`None`: a signal ended it).
    pub fn terminate(&mut self) -> Option<i32> {
        self.run.stop(Signal::TERM).code()
    }

    /// SIGINT, as Ctrl-C; waits, and gives the exit code.
    pub fn interrupt(&mut self) -> Option<i32> {
        self.run.stop(Signal::INT).code()
    }

    /// Waits for an end that comes by itself, and gives the exit code.
    pub fn wait_end(&mut self) -> Option<i32> {
        self.run.wait("its end").code()
    }

    /// Starts it again on the same data, with a new port; one that runs is terminated first.
    pub fn restart(&mut self) {
        self.try_restart().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts it again on the same data and ends it as a crash would so long after, whether it listens by then or not.
    /// Panics: one runs, or the program can not be started.
    pub fn die_in_start(&mut self, after: Duration) {
        assert!(!self.is_alive(), "a server runs on this data");
        let mut command = command(&self.options, &self.folder, &self.data_dir)
            .unwrap_or_else(|error| panic!("{error}"));
        let spawned = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // Whether it is gone already is no matter: it is ended and reaped below.
        drop(proc::wait_gone(&[child.id()], after));
        drop(child.kill());
        drop(child.wait());
    }

    /// The same as [`Server::restart`]. Errors: why it does not listen.
    pub fn try_restart(&mut self) -> Result<(), String> {
        if self.is_alive() {
            self.terminate();
        }
        self.run = Run::start(&self.options, &self.folder, &self.data_dir)?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run.kill();
        end_keepers(&self.data_dir);
    }
}

impl Run {
    fn start(options: &Options, folder: &TempDir, data_dir: &Path) -> Result<Run, String> {
        let mut command = command(options, folder, data_dir)?;
        let spawned = command.spawn();
        let program = command.get_program().display();
        let mut child = spawned.map_err(|error| format!("{program}: {error}"))?;
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let text = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&text);
        // Until it listens, the address is nobody's.
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut run = Run { child, address, stderr: text, status: None };
        let (ready, listening) = mpsc::channel();
        let (ended, all_said) = mpsc::channel();
        let readers = thread::spawn("server-stdout", move || read_stdout(stdout, &ready))
            .map(Thread::detach)
            .and_then(|()| {
                thread::spawn("server-stderr", move || {
                    read_stderr(stderr, &kept);
                    drop(ended);
                })
            });
        readers.map(Thread::detach).map_err(|error| format!("no thread for a pipe: {error}"))?;
        if let Ok(address) = listening.recv_timeout(START_TIME) {
            run.address = address;
            return Ok(run);
        }
        let state = match proc::wait_gone(&[run.child.id()], Duration::ZERO) {
            Ok(()) => "it ended",
            Err(_) => "it still runs",
        };
        run.kill();
        // Its last words may still be on the way.
        let _: Result<(), _> = all_said.recv_timeout(LAST_WORDS_TIME);
        let status = run.status.map(|status| status.to_string()).unwrap_or_default();
        let text = run.stderr_text();
        Err(format!("awaited \"{LISTENING}…\" of the server: {state} ({status}); stderr:\n{text}"))
    }

    /// Sends the signal and waits. Panics: it does not end in time.
    fn stop(&mut self, signal: Signal) -> ExitStatus {
        if self.status.is_none() {
            // An error is a process that has just ended.
            drop(proc::signal(self.child.id(), signal));
        }
        self.wait(&format!("its end after {signal:?}"))
    }

    fn wait(&mut self, what: &str) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        if proc::wait_gone(&[self.child.id()], STOP_TIME).is_err() {
            panic!("awaited {what} for {STOP_TIME:?}; stderr:\n{}", self.stderr_text());
        }
        let status = self.child.wait().expect("our child, not reaped yet");
        self.status = Some(status);
        status
    }

    fn kill(&mut self) {
        if self.status.is_none() {
            // An error is a process that has just ended.
            drop(self.child.kill());
            self.status = self.child.wait().ok();
        }
    }

    fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.stderr)).into_owned()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.kill();
    }
}

fn command(options: &Options, folder: &TempDir, data_dir: &Path) -> Result<Command, String> {
    let program = match &options.program {
        Some(program) => program.clone(),
        None => program("GG_TEST_SERVER", "gg-runtime-server")?,
    };
    let mut command = Command::new(program);
    for name in home_names() {
        command.env_remove(name);
    }
    command
        .arg("--config")
        .arg(config_file(folder))
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--bind", "127.0.0.1:0"])
        .args(&options.args)
        .env("HOME", folder.path().join("home"))
        .envs(options.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

/// A built program: the one that the environment variable names, or the one beside the test.
///
/// The test's own path is `target/<profile>/deps/<test>`, and the programs are in `target/<profile>`.
pub fn program(variable: &str, name: &str) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let test = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let found = test.ancestors().skip(1).take(3).map(|folder| folder.join(name));
    let found = found.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| {
        format!("{name} is not near {}: build it, or name it in {variable}", test.display())
    })
}

/// Ends all keepers of a data folder with their trees: by TERM if they do what keepers do, else by KILL.
pub fn end_keepers(data_dir: &Path) {
    end_keepers_within(data_dir, KEEPER_TIME);
}

fn end_keepers_within(data_dir: &Path, grace: Duration) {
    let keepers = proc::keepers_of(data_dir);
    if keepers.is_empty() {
        return;
    }
    let below = |keepers: &[u32]| -> Vec<u32> {
        keepers.iter().flat_map(|keeper| proc::descendants(*keeper)).collect()
    };
    // An error of a signal is a process that has just ended, here and below.
    let mut all = below(&keepers);
    all.extend(&keepers);
    for keeper in &keepers {
        drop(proc::signal(*keeper, Signal::TERM));
    }
    if let Err(left) = proc::wait_gone(&all, grace) {
        // What a killed keeper leaves has another parent, so all that is below is looked up before.
        let mut late = below(&left);
        late.extend(&left);
        for pid in &late {
            drop(proc::signal(*pid, Signal::KILL));
        }
        drop(proc::wait_gone(&late, KEEPER_TIME));
    }
}

fn config_file(folder: &TempDir) -> PathBuf {
    folder.path().join("server.toml")
}

/// Variables that would lead the server or an agent out of the home that the test gave it.
fn home_names() -> Vec<OsString> {
    let leads = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("XDG_") || name.starts_with("GG_") && !name.starts_with("GG_TEST_")
    };
    std::env::vars_os().map(|(name, _)| name).filter(leads).collect()
}

fn read_stdout(stdout: impl Read, ready: &mpsc::Sender<SocketAddr>) {
    let mut input = BufReader::new(stdout);
    let mut line = Vec::new();
    while matches!(input.read_until(b'\n', &mut line), Ok(count) if count > 0) {
        let text = String::from_utf8_lossy(&line);
        if let Some(rest) = text.trim().strip_prefix(LISTENING) {
            let end = rest.find(|letter: char| letter == '/' || letter.is_whitespace());
            if let Ok(address) = rest[..end.unwrap_or(rest.len())].parse() {
                // Only the first one is awaited.
                let _ = ready.send(address);
            }
        }
        line.clear();
    }
}

fn read_stderr(mut stderr: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut piece = [0; 16 << 10];
    loop {
        match stderr.read(&mut piece) {
            Ok(0) => return,
            Ok(count) => {
                let mut kept = lock(kept);
                kept.extend_from_slice(&piece[..count]);
                if kept.len() > STDERR_BYTES_MAX {
                    let cut = kept.len() - STDERR_BYTES_MAX / 2;
                    kept.drain(..cut);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A script that stands for the server, in a folder of its own.
    fn stand_in(script: &str) -> (TempDir, Options) {
        let folder = TempDir::new("gg-server-test");
        let path = folder.path().join("server.sh");
        // A shell can not trap what was ignored when it began, and a job in the background begins so.
        let shell = "#!/usr/bin/env -S --default-signal=INT sh";
        fs::write(&path, format!("{shell}\n{script}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let options = Options { program: Some(path), ..Options::default() };
        (folder, options)
    }

    const GOOD: &str = r#"
        echo starting; echo "$@" >&2; cat "$2" >&2; echo "home $HOME" >&2
        mkdir -p "$4/auth"; echo secret > "$4/auth/api-token"
        trap 'exit 3' TERM; trap 'exit 4' INT
        mkfifo "$4/nothing" 2>/dev/null
        echo "listening on http://127.0.0.1:4711/"
        while :; do read line <> "$4/nothing"; done"#;

    #[test]
    fn a_server_is_started_asked_to_end_and_started_again() {
        let (_folder, options) = stand_in(GOOD);
        let mut server = Server::start(Options { config_toml: "a = 1".to_owned(), ..options });
        assert_eq!(server.address().port(), 4711);
        assert_eq!(server.token(), "secret");
        let home = server.folder().join("home");
        let told = wait::until(Duration::from_secs(10), "the arguments are told", || {
            let text = server.stderr_text();
            text.contains("home ").then_some(text)
        });
        assert!(told.contains("--bind 127.0.0.1:0") && told.contains("a = 1"), "{told}");
        assert!(told.contains(home.to_str().unwrap()), "{told}");
        assert_eq!(server.terminate(), Some(3));
        assert!(!server.is_alive());
        server.restart();
        assert!(server.is_alive());
        assert_eq!(server.interrupt(), Some(4));
        server.restart();
        server.kill9();
        assert!(!server.is_alive());
        assert_eq!(server.wait_end(), None);
    }

    #[test]
    fn a_server_that_dies_shows_what_it_said() {
        let (_folder, options) = stand_in("echo no such key: colour >&2; exit 2");
        let error = Server::try_start(options).unwrap_err();
        assert!(error.contains("no such key: colour"), "{error}");
        assert!(error.contains("exit status: 2"), "{error}");
    }

    #[test]
    fn a_server_that_is_dropped_is_gone_with_its_folder() {
        let (_folder, options) = stand_in(GOOD);
        let server = Server::start(options);
        let (pid, data) = (server.pid(), server.data_dir().to_owned());
        assert!(data.exists());
        drop(server);
        assert!(!proc::alive(pid));
        assert!(!data.exists());
    }

    /// A stand-in for a keeper with one child; both are gone after the test, also when it fails.
    struct Family {
        keeper: Child,
        child: u32,
    }

    impl Family {
        /// Runs a script that prints the pid of its child as a keeper of the data folder.
        fn start(data: &Path, script: &str) -> Family {
            let program = data.join("gg-keeper");
            symlink("/bin/sh", &program).unwrap();
            let path = data.join("keeper.sh");
            fs::write(&path, script).unwrap();
            let mut command = Command::new(program);
            let mut keeper = command.arg(&path).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            let stdout = keeper.stdout.take().unwrap();
            BufReader::new(stdout).read_line(&mut line).unwrap();
            Family { keeper, child: line.trim().parse().unwrap() }
        }
    }

    impl Drop for Family {
        fn drop(&mut self) {
            // What has ended cannot be killed, which is fine.
            drop(self.keeper.kill());
            drop(proc::signal(self.child, Signal::KILL));
            drop(self.keeper.wait());
        }
    }

    #[test]
    fn keepers_end_with_their_trees_whether_they_obey_or_not() {
        for script in [
            "sleep 1000 & trap \"kill $!; exit\" TERM; echo $!; wait",
            "trap '' TERM; sh -c 'echo $$; exec sleep 1000' & while :; do wait; done",
        ] {
            let folder = TempDir::new("gg-keeper-test");
            let family = Family::start(folder.path(), script);
            let keeper = family.keeper.id();
            // Between its fork and its exec the child has the keeper's command line, so there may be two.
            assert!(proc::keepers_of(folder.path()).contains(&keeper));
            end_keepers_within(folder.path(), Duration::from_millis(300));
            assert!(!proc::alive(keeper), "{script}");
            assert!(!proc::alive(family.child), "{script}");
            assert!(proc::keepers_of(folder.path()).is_empty());
        }
    }
}
