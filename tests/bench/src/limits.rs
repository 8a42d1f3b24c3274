//! `limits`: what the machine lets anybody do, beside what the server makes of it in the same run.
//!
//! A delta goes through a pipe (agent to keeper), a Unix socket (keeper to server), a commit with its sync, and a TCP
//! socket (server to client); each step wakes a thread or a process. The parts are measured bare: two threads that
//! throw a short message to and fro. Half of a round trip is one way, so the sum of the ways and of a sync is what a
//! delta can not beat here, and the factor between them is what the server adds. The bare loop of SQLite is in
//! `ledger`.

use crate::deltas::travel;
use crate::machine;
use crate::report::{Report, Target};
use crate::rig::{Agent, Rig};
use crate::sample::Samples;
use gooselake_harness::thread;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Instant;

const ROUNDS: usize = 5000;
/// About a delta's line.
const MESSAGE_BYTES: usize = 200;
/// So slow that no delta meets another.
const HZ: usize = 100;
const CHUNKS: usize = 500;

pub(crate) fn run(report: &mut Report) {
    let (there, back) = (std::io::pipe(), std::io::pipe());
    let ((from_us, to_them), (from_them, to_us)) = (there.expect("a pipe"), back.expect("a pipe"));
    let pipe = round_trips((from_them, to_them), (from_us, to_us));
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let unix =
        round_trips(both(&ours, UnixStream::try_clone), both(&theirs, UnixStream::try_clone));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let ours = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let (theirs, _) = listener.accept().expect("somebody connects");
    for socket in [&ours, &theirs] {
        socket.set_nodelay(true).expect("a TCP socket");
    }
    let tcp = round_trips(both(&ours, TcpStream::try_clone), both(&theirs, TcpStream::try_clone));
    let sync = machine::sync_times();
    let mut least_ms = 0.0;
    for (what, mut samples, ways) in [
        ("round trip through pipes", pipe, 0.5),
        ("… a Unix socket", unix, 0.5),
        ("… TCP on loopback", tcp, 0.5),
        ("append of 4 KiB with fdatasync", sync, 1.0),
    ] {
        let p50 = samples.percentile_ms(50);
        report.figure(&format!("{what}, p50"), p50, "ms", Target::None);
        report.figure("… p99", samples.percentile_ms(99), "ms", Target::None);
        least_ms += p50 * ways;
    }
    let rig = Rig::start();
    let mut alone = travel(&rig.peer(), &rig.session(Agent::Stamping), HZ, CHUNKS);
    let p50 = alone.percentile_ms(50);
    report.figure("one way through all of them, and a sync", least_ms, "ms", Target::None);
    report.figure("a delta alone, agent to client, p50", p50, "ms", Target::None);
    report.figure("… of what is possible", p50 / least_ms, "times", Target::None);
}

fn both<S>(socket: &S, clone: impl Fn(&S) -> std::io::Result<S>) -> (S, S) {
    (clone(socket).expect("a descriptor"), clone(socket).expect("a descriptor"))
}

/// Throws a message to another thread and waits for it to come back.
fn round_trips<R, W>(ours: (R, W), theirs: (R, W)) -> Samples
where
    R: Read,
    W: Write,
    (R, W): Send + 'static,
{
    let echo = move || {
        let (mut from, mut to) = theirs;
        let mut message = [0; MESSAGE_BYTES];
        for _ in 0..ROUNDS {
            from.read_exact(&mut message).expect("a message comes");
            to.write_all(&message).expect("it is taken");
        }
    };
    let echo = thread::spawn("echo", echo).expect("a thread");
    let (mut from, mut to) = ours;
    let mut message = [7; MESSAGE_BYTES];
    let mut samples = Samples::default();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        to.write_all(&message).expect("it is taken");
        from.read_exact(&mut message).expect("it comes back");
        samples.add(begun.elapsed());
    }
    echo.join();
    samples
}
