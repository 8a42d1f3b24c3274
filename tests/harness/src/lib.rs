//! What black-box tests, the benchmark and the real-agent tests drive the built programs with.
//!
//! One paragraph per module, in the order of their floors. `thread` is the one place where threads start. `rng` and
//! `temp` are a deterministic source of numbers and a folder that goes away. `wait` is the one place that looks again
//! and again at something that cannot tell of itself. `proc` looks at processes from outside, through `/proc`.
//! `connection` is one HTTP/1.1 connection with deadlines; `client` makes requests over it, and `stream` reads SSE and
//! NDJSON from it. `server` starts, kills and restarts the built server, and leaves nothing of it behind.
//! `fault` is a machine that goes wrong under a server: disk, clock, threads, power. `preload` builds what is put
//! between a server and the C library for that.
//! `proof` holds what must be true of any session's log, whatever happened; `demo` is what the demo agent says. `plot`
//! draws figures as SVG, with the line that fits them best. `driver` is what the programs that run for long are told.
//!
//! Everything here fails by a panic that says what was awaited and what came instead, because a caller is a test; the
//! few functions that a test of failure needs are called `try_…` and give a `Result`. Nothing waits without a
//! deadline. The crate deliberately shares no code with the server: it sees what any client sees.

pub mod client;
mod connection;
pub mod demo;
pub mod driver;
#[cfg(test)]
mod fake;
pub mod fault;
pub mod plot;
pub mod preload;
pub mod proc;
pub mod proof;
pub mod rng;
pub mod server;
pub mod stream;
pub mod temp;
pub mod thread;
pub mod wait;
