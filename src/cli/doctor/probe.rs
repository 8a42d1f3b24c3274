//! Whether a server answers: one request over one connection, with deadlines, and only its status line is read.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// For each read and write; a status line is short.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// No status line is longer.
const LINE_BYTES: u64 = 1024;

/// Asks the server for `/ready`. Errors: why it is not, as a phrase.
pub(super) fn ready(address: SocketAddr, base_path: &str) -> Result<(), String> {
    let address = reachable(address);
    let line = ask(address, base_path).map_err(|error| error.to_string())?;
    match line.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        _ => Err(format!("it answered {:?}", line.trim())),
    }
}

fn ask(address: SocketAddr, base_path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_WAIT)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream.set_write_timeout(Some(ANSWER_WAIT))?;
    let request =
        format!("GET {base_path}/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES)).read_line(&mut line)?;
    Ok(line)
}

/// A server that listens on every address is asked on the loopback one.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_is_asked_on_loopback() {
        let of = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(of("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(of("[::]:8080"), "[::1]:8080");
        assert_eq!(of("10.0.0.7:8080"), "10.0.0.7:8080");
    }

    #[test]
    fn nobody_there_is_an_answer() {
        // A port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(ready(free, "").is_err());
    }
}
