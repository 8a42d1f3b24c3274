//! The other end of a connection, for a handler that takes its time.
//!
//! Owns: the look whether the client of a request is still there, on the connection's thread, while its request is
//! served. It reads nothing: what the client has sent behind its request belongs to the next one. A client that has
//! closed its side counts as gone, as it does for a stream: whether it still reads can not be told without a write.

use super::registry::Link;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// A connection on which nothing is written asks its peer for a sign of life after this time, and as often. Without it
/// a machine that vanished would hold a place for as long as nobody writes to it.
#[cfg(target_os = "linux")]
const PEER_PROBE: Duration = Duration::from_secs(20);

/// What tells that a client has closed its side, beside what is always told: that the connection is lost.
#[cfg(target_os = "linux")]
const CLOSED: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const CLOSED: PollFlags = PollFlags::empty();

/// Whoever has sent a request. By default nobody, who is never gone.
#[derive(Default)]
pub struct Client {
    link: Option<Arc<Link>>,
}

impl Client {
    pub(super) fn of(link: &Arc<Link>) -> Client {
        Client { link: Some(Arc::clone(link)) }
    }

    /// It will hear nothing for a while: has the system find out if its machine vanishes meanwhile.
    pub fn keep_waiting(&self) {
        if let Some(link) = &self.link
            && let Err(error) = probe_peer(&link.stream)
        {
            log::debug!("a client that vanishes is not noticed: {error}");
        }
    }

    /// Whether it has closed its side or is lost, asked without waiting.
    pub fn is_gone(&self) -> bool {
        let Some(link) = &self.link else { return false };
        let mut told = [PollFd::new(&link.stream, CLOSED)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut told, Some(&at_once)).is_ok_and(|count| count > 0)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

/// Has the system ask the peer of a quiet connection for signs of life.
pub(super) fn probe_peer(stream: &TcpStream) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        sockopt::set_tcp_keepidle(stream, PEER_PROBE)?;
        sockopt::set_tcp_keepintvl(stream, PEER_PROBE)?;
    }
    Ok(sockopt::set_socket_keepalive(stream, true)?)
}
