//! gg-keeper: holds one child process, so that it outlives the server.
//!
//! `gg-keeper <dir>`, with a connected Unix socket as fd 0 that carries the SPEC frame and is the
//! first connection, and as fd 1 the socket that listens for later ones: bound by the server, so
//! that it answers before this program has run an instruction. The server starts one for each
//! agent, terminal and command. One thread, one `poll` loop ([`holder`]); it exits when the child,
//! everything the child left behind, and the telling of it are over.
//!
//! This file owns the way from `exec` to that loop: own session (so neither the server's death nor
//! its terminal's Ctrl-C reaches the child), sub-reaper, descriptors, the child. No secret is ever
//! in argv; the environment of the child comes over the socket. signal-hook is a dependency because
//! a handler that writes to a pipe is the only safe way to wait for a signal and for sockets in one
//! `poll`, and because a blocked mask (the way of `signalfd`) would be inherited by the child.

mod client;
mod holder;
mod input;
mod note;
mod output;
mod signals;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use gg_keeper::exit::{Exit, StoppedBy};
use gg_keeper::protocol::{HEAD_LEN, PAYLOAD_MAX, Reply, Request, Spec, split_head};
use gg_keeper::{LOG, MARK, SOCKET};

use crate::holder::Holder;
use crate::input::Input;
use crate::output::Output;
use crate::signals::Signals;

/// How long the server may take to send the SPEC frame.
const SPEC_WAIT: Duration = Duration::from_secs(10);

/// How long a connection may hold up the telling of a child that did not start.
const REFUSAL_WAIT: Duration = Duration::from_secs(2);

const USAGE: &str = "usage: gg-keeper <dir>, with its sockets as fd 0 and fd 1: the server does it";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(dir), None) = (arguments.next(), arguments.next()) else {
        note::add(USAGE);
        return ExitCode::from(2);
    };
    let told = match dir.to_str() {
        Some("--help" | "-h") => Some(format!("{USAGE}\n")),
        Some("--version" | "-V") => Some(format!("gg-keeper {}\n", env!("CARGO_PKG_VERSION"))),
        _ => None,
    };
    if let Some(text) = told {
        // A closed stdout has no reader to miss it.
        drop(io::stdout().write_all(text.as_bytes()));
        return ExitCode::SUCCESS;
    }
    match run(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note::add(&format!("the keeper could not start: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(dir: &Path) -> io::Result<()> {
    let (listener, mut server) = settle(dir)?;
    let signals = Signals::install()?;
    let spec = read_spec(&mut server)?;
    match start(&spec) {
        Ok((child, input, outputs)) => {
            let mut holder = Holder::new(&spec, &child, input, outputs, signals, listener)?;
            holder.welcome(server)?;
            // From here on the spec is the child's alone: argv and environment may be long, and
            // this process lives as long as the child.
            drop(spec);
            holder.run();
        }
        Err(error) => refuse(&server, &error),
    }
    match std::fs::remove_file(SOCKET) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes this process the root of a tree of its own, in the folder of its child.
fn settle(dir: &Path) -> io::Result<(UnixListener, UnixStream)> {
    // A process that leads a group already (started by hand from a shell) can not lead a session,
    // and need not.
    if let Err(error) = rustix::process::setsid()
        && error != rustix::io::Errno::PERM
    {
        return Err(error.into());
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    std::env::set_current_dir(dir)?;
    let server: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(LOG)?;
    let listener: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&log)?;
    Ok((UnixListener::from(listener), UnixStream::from(server)))
}

fn read_spec(server: &mut UnixStream) -> io::Result<Spec> {
    server.set_read_timeout(Some(SPEC_WAIT))?;
    let mut head = [0; HEAD_LEN];
    server.read_exact(&mut head)?;
    let (kind, len) = split_head(&head);
    if len > PAYLOAD_MAX {
        return Err(io::Error::other("the spec is longer than the bound"));
    }
    let mut payload = vec![0; len];
    server.read_exact(&mut payload)?;
    server.set_read_timeout(None)?;
    match Request::decode(kind, &payload) {
        Some(Request::Spec(spec)) => Ok(*spec),
        _ => Err(io::Error::other("the first frame is not a spec")),
    }
}

/// Starts the child with its journals ready. The journals come first: there is no child without a
/// place for its bytes.
fn start(spec: &Spec) -> io::Result<(Child, Input, [Output; 2])> {
    let here = Path::new(".");
    let mut input = Input::create(here, spec.journal_segment_bytes)?;
    let [mut stdout, mut stderr] = Output::create_both(here, spec)?;
    let cwd = Path::new(&spec.cwd);
    if !cwd.is_absolute() || !cwd.is_dir() {
        let name = cwd.display();
        return Err(io::Error::other(format!("the working directory {name} is not a folder")));
    }
    let (program, arguments) =
        spec.argv.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
    let stdin = if spec.stdin_pipe { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .env(MARK, &spec.child_id)
        .current_dir(cwd)
        .process_group(0)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::other(format!("{}: {error}", Path::new(program).display())))?;
    input.connect(child.stdin.take().map(OwnedFd::from))?;
    stdout.connect(child.stdout.take().map(OwnedFd::from))?;
    stderr.connect(child.stderr.take().map(OwnedFd::from))?;
    Ok((child, input, [stdout, stderr]))
}

/// Tells of a child that did not start: on disk first, then to the server.
fn refuse(mut server: &UnixStream, error: &io::Error) {
    let mut exit = Exit::new(StoppedBy::SpawnFailed);
    exit.error = Some(error.to_string());
    if let Err(error) = exit.write(Path::new(".")) {
        note::add(&format!("the exit file could not be written: {error}"));
    }
    let mut frame = Vec::new();
    Reply::Exit(exit).encode(&mut frame);
    // A server that is gone reads the file.
    drop(server.set_write_timeout(Some(REFUSAL_WAIT)).and_then(|()| server.write_all(&frame)));
}
