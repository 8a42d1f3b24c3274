//! One keeper under test, and the server's end of its socket.
//!
//! Owns: a folder, the keeper process and the connection. Every read has a deadline; dropping it
//! ends everything that has the mark of its child, so that a test that fails leaves nothing
//! running.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gg_keeper::SOCKET;
use gg_keeper::exit::Exit;
use gg_keeper::protocol::{Hello, JournalPolicy, Policy, Reply, Request, Spec, Stream};
use gg_keeper::tree::{self, Process};

/// Nothing in these tests takes this long unless it is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const KEEPER: &str = env!("CARGO_BIN_EXE_gg-keeper");

pub(crate) struct Kept {
    pub(crate) dir: PathBuf,
    pub(crate) spec: Spec,
    pub(crate) keeper: Child,
    pub(crate) socket: UnixStream,
    /// What came of each stream, from the offset where this connection began.
    pub(crate) seen: [Vec<u8>; 2],
    /// The offset after the last byte that came, checked at each frame.
    pub(crate) next: [u64; 2],
    /// The newest STDIN_ACCEPTED.
    pub(crate) accepted: (u64, u64),
}

/// A shell with this script, everything else as an agent would have it.
pub(crate) fn shell(script: &str) -> Spec {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let block = JournalPolicy { policy: Policy::Block, bytes_max: 16 << 20 };
    Spec {
        child_id: format!("chld_test_{}_{next}", std::process::id()),
        argv: ["/bin/sh", "-c", script].map(OsString::from).to_vec(),
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        cwd: "/".into(),
        stdout: block,
        stderr: block,
        grace_ms: 5_000,
        lease_ms: 0,
        stdin_pipe: true,
        journal_segment_bytes: 1 << 20,
    }
}

/// The listening socket of the keeper in this folder.
fn listen(dir: &Path) -> UnixListener {
    let folder = fs::File::open(dir).unwrap();
    UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd())).unwrap()
}

impl Kept {
    pub(crate) fn start(spec: Spec) -> Kept {
        Kept::start_with(spec, |dir| {
            let mut command = Command::new(KEEPER);
            command.arg(dir);
            command
        })
    }

    /// Starts the keeper by a command of the test's own.
    pub(crate) fn start_with(spec: Spec, command: impl FnOnce(&Path) -> Command) -> Kept {
        let dir = std::env::temp_dir().join(&spec.child_id);
        fs::create_dir(&dir).unwrap();
        let (mut socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let listener = listen(&dir);
        let keeper = command(&dir)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(OwnedFd::from(listener)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut frame = Vec::new();
        Request::Spec(Box::new(spec.clone())).encode(&mut frame);
        socket.write_all(&frame).unwrap();
        let seen = [Vec::new(), Vec::new()];
        Kept { dir, spec, keeper, socket, seen, next: [0, 0], accepted: (0, 0) }
    }

    pub(crate) fn send(&mut self, request: &Request<'_>) {
        let mut frame = Vec::new();
        request.encode(&mut frame);
        self.socket.write_all(&frame).unwrap();
    }

    /// The next frame; None at the end of the connection. Output is collected, and checked to have
    /// no gap.
    pub(crate) fn read(&mut self) -> Option<Reply> {
        let reply = Reply::read(&mut self.socket);
        let reply = reply.unwrap_or_else(|error| panic!("no reply before the deadline: {error}"));
        match &reply {
            Some(Reply::Output { stream, offset, bytes }) => {
                let next = &mut self.next[stream.index()];
                assert_eq!(*offset, *next, "{stream:?} goes on where it was");
                *next += bytes.len() as u64;
                self.seen[stream.index()].extend_from_slice(bytes);
            }
            Some(Reply::StdinAccepted { end, taken }) => self.accepted = (*end, *taken),
            _ => {}
        }
        reply
    }

    pub(crate) fn hello(&mut self) -> Hello {
        match self.read() {
            Some(Reply::Hello(hello)) => {
                assert_eq!(hello.keeper_pid, self.keeper.id());
                hello
            }
            other => panic!("HELLO comes first, not {other:?}"),
        }
    }

    /// Reads until the child has written this text to stdout.
    pub(crate) fn wait_for(&mut self, text: &str) {
        while !self.stdout().contains(text) {
            let reply = self.read();
            assert!(reply.is_some(), "the connection ended before {text:?}");
        }
    }

    /// Reads to the end: everything that comes, then EXIT, then the end of the connection.
    pub(crate) fn exit(&mut self) -> Exit {
        let exit = loop {
            match self.read() {
                Some(Reply::Exit(exit)) => break exit,
                Some(_) => {}
                None => panic!("the connection ended before EXIT"),
            }
        };
        assert_eq!(Exit::read(&self.dir).unwrap().as_ref(), Some(&exit), "on disk before the end");
        assert_eq!(self.read(), None, "EXIT is the last frame");
        self.wait_keeper();
        assert_eq!(self.living(), [], "nothing of the tree is left");
        exit
    }

    /// Waits until the keeper has ended by itself.
    pub(crate) fn wait_keeper(&mut self) {
        wait_process(self.keeper.id().cast_signed());
        assert!(self.keeper.wait().unwrap().success());
    }

    /// A new connection, attached at these offsets.
    pub(crate) fn connect(&mut self, from: [u64; 2]) -> Hello {
        self.socket = UnixStream::connect(self.dir.join("sock")).unwrap();
        self.socket.set_read_timeout(Some(DEADLINE)).unwrap();
        self.seen = [Vec::new(), Vec::new()];
        self.next = from;
        self.send(&Request::Attach { stdout_from: from[0], stderr_from: from[1] });
        self.hello()
    }

    /// Ends the connection, as a server that is killed does.
    pub(crate) fn hang_up(&mut self) {
        self.socket = UnixStream::pair().unwrap().0;
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.seen[Stream::Stdout.index()]).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.seen[Stream::Stderr.index()]).into_owned()
    }

    /// The processes of the child's tree that live.
    pub(crate) fn living(&self) -> Vec<Process> {
        tree::marked(&self.spec.child_id).unwrap()
    }

    pub(crate) fn file_exists(&self, name: &str) -> bool {
        self.dir.join(name).exists()
    }

    /// How many bytes the files of a stream hold.
    pub(crate) fn journal_bytes(&self, name: &str) -> u64 {
        let entries = fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap());
        let ours = entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with(name));
        ours.map(|entry| entry.metadata().unwrap().len()).sum()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What a failed test would otherwise take with it.
            for name in ["exit", "keeper.log"] {
                eprintln!("{name}: {:?}", fs::read_to_string(self.dir.join(name)));
            }
        }
        let swept = tree::sweep(&self.spec.child_id, DEADLINE);
        // The keeper of a test has no mark. It may have ended long ago.
        drop(self.keeper.kill());
        drop(self.keeper.wait());
        drop(fs::remove_dir_all(&self.dir));
        if !std::thread::panicking() {
            assert_eq!(swept.unwrap(), 0, "the test left processes behind");
        }
    }
}

/// Waits until this process has ended.
pub(crate) fn wait_process(pid: i32) {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let pid = Pid::from_raw(pid).unwrap();
    // A process that is reaped already has no pidfd.
    if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
        assert!(tree::wait_readable(&pidfd, Instant::now() + DEADLINE), "{pid:?} lives on");
    }
}
