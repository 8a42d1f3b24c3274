//! The word to the service manager: ready, stopping.
//!
//! systemd names a datagram socket in `NOTIFY_SOCKET` (`Type=notify`); without one nothing is sent. Lost words are
//! logged and change nothing: the manager has a timeout of its own.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The server listens and has taken up what the last one left.
pub(super) fn ready(status: &str) {
    send(&format!("READY=1\nSTATUS={status}\nMAINPID={}", std::process::id()));
}

/// The server is on its way out.
pub(super) fn stopping() {
    send("STOPPING=1\nSTATUS=stopping");
}

fn send(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send_to(name.as_bytes(), state) {
        log::warn!("the service manager can not be told {state:?}: {error}");
    }
}

fn send_to(name: &[u8], state: &str) -> io::Result<()> {
    // A leading @ stands for a name that is no file.
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    // The manager's queue may be full; it is not waited for.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(|_sent| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// What arrives at a socket that is bound to this address and named so.
    fn told(address: &SocketAddr, name: &[u8]) -> String {
        let manager = UnixDatagram::bind_addr(address).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        send_to(name, "READY=1").unwrap();
        let mut buffer = [0; 100];
        let count = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    #[test]
    fn a_manager_is_told_at_a_path_and_at_a_name_that_is_no_file() {
        let name = format!("gg-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let address = SocketAddr::from_pathname(&path).unwrap();
        assert_eq!(told(&address, path.as_os_str().as_bytes()), "READY=1");
        std::fs::remove_file(&path).unwrap();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        assert_eq!(told(&address, format!("@{name}").as_bytes()), "READY=1");
    }

    #[test]
    fn a_manager_that_is_not_there_is_an_error_and_no_wait() {
        assert!(send_to(b"/nowhere/at/all", "READY=1").is_err());
    }
}
