//! A client of the gateway, just large enough: one request, one connection, one JSON answer.
//!
//! Owns: nothing between two requests, so a server that was restarted is simply found again. Every step has a
//! deadline. It speaks HTTP/1.1 over a plain socket with `Connection: close`, and takes answers with a length or up to
//! the end of the connection, which is what the server sends; TLS and chunks are deliberately not here.

use crate::settings::{self, Settings};
use gg_mcp_server::failure;
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

const CONNECT_TIME: Duration = Duration::from_secs(5);
const WRITE_TIME: Duration = Duration::from_secs(30);
/// The longest that a tool may take: stopping a process tree waits for its end.
const ANSWER_TIME: Duration = Duration::from_secs(300);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Where the gateway is and how to be let in.
pub(crate) struct Gateway {
    url: String,
    token: String,
}

impl Gateway {
    /// The gateway as the settings know it now. Errors: an envelope that names what is missing.
    pub(crate) fn of(settings: &Settings) -> Result<Gateway, Value> {
        let url = line_of(settings.url_file.as_deref()).or_else(|| settings.url.clone());
        let token = line_of(settings.token_file.as_deref()).or_else(|| settings.token.clone());
        match (url, token) {
            (Some(url), Some(token)) => {
                Ok(Gateway { url: url.trim_end_matches('/').to_owned(), token })
            }
            _ => {
                let mut missing = failure(UNAVAILABLE, "the gateway is not configured");
                missing["error"]["details"] =
                    json!({"required_env": [settings::URL, settings::TOKEN]});
                Err(missing)
            }
        }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.ask("GET", path, &[])
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", path, body.to_string().as_bytes())
    }

    /// The envelope that the gateway answers, or one that says why there is none.
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Value {
        let url = &self.url;
        let Some((authority, base)) = split(url) else {
            return failure(UNAVAILABLE, &format!("{url} is no http:// address of a gateway"));
        };
        let socket = match connect(authority) {
            Ok(socket) => socket,
            Err(error) => {
                let told = format!("the gateway {url} can not be reached: {error}; try again soon");
                return failure(UNAVAILABLE, &told);
            }
        };
        let head = format!(
            "{method} {base}{path} HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.token,
            body.len()
        );
        match exchange(&socket, &[head.as_bytes(), body].concat()) {
            Ok((status, text)) => envelope(status, &text),
            Err(error) => {
                let told = format!(
                    "the gateway {url} did not answer: {error}; the call may have been carried out"
                );
                failure(UNAVAILABLE, &told)
            }
        }
    }
}

/// What a file says now, if it says anything.
fn line_of(path: Option<&Path>) -> Option<String> {
    let text = std::fs::read_to_string(path?).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The code of all failures to reach the gateway.
pub(crate) const UNAVAILABLE: &str = "backend_unavailable";

/// Host with port, and path, of an http URL.
fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (!authority.is_empty() && !authority.contains(['@', ' ', '\r', '\n']))
        .then_some((authority, path))
}

fn connect(authority: &str) -> io::Result<TcpStream> {
    let has_port = authority.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
    let with_port = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in with_port.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIME) {
            Ok(socket) => {
                socket.set_write_timeout(Some(WRITE_TIME))?;
                socket.set_read_timeout(Some(ANSWER_TIME))?;
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sends a whole request and reads the status and the body of the answer.
fn exchange(mut socket: &TcpStream, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    // A server may refuse before it has read all: what it says counts more than that it did not listen.
    let sent = socket.write_all(request);
    let mut bytes = Vec::new();
    let read = socket.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        sent?;
        read?;
        return Err(wrong("the connection ended before an answer"));
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| wrong("the answer is no HTTP"))?;
    let body = bytes.split_off(end + 4);
    let length = head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse().ok() } else { None }
    });
    match length {
        Some(length) if body.len() < length => Err(wrong("the answer is not whole")),
        _ => Ok((status, body)),
    }
}

/// The envelope in an answer; an error of HTTP becomes one.
fn envelope(status: u16, body: &[u8]) -> Value {
    let json = serde_json::from_slice::<Value>(body).unwrap_or_default();
    if status == 200 && json["ok"].is_boolean() {
        return json;
    }
    let message = json["error"].as_str().map_or_else(
        || format!("the gateway answered with status {status} and nothing that is understood"),
        str::to_owned,
    );
    failure(json["code"].as_str().unwrap_or(UNAVAILABLE), &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_split_or_refused() {
        for (url, parts) in [
            ("http://127.0.0.1:8080/v1/mcp", Some(("127.0.0.1:8080", "/v1/mcp"))),
            ("http://[::1]:80", Some(("[::1]:80", ""))),
            ("https://a/b", None),
            ("http:///b", None),
            ("http://user@a/b", None),
            ("nonsense", None),
        ] {
            assert_eq!(split(url), parts, "{url}");
        }
    }

    #[test]
    fn an_error_of_http_becomes_an_envelope() {
        let refused = envelope(403, br#"{"error":"not yours","code":"forbidden"}"#);
        assert_eq!(refused, failure("forbidden", "not yours"));
        let good = envelope(200, br#"{"ok":true,"result":{}}"#);
        assert_eq!(good, json!({"ok": true, "result": {}}));
        assert_eq!(envelope(200, b"<html>")["error"]["code"], UNAVAILABLE);
        assert_eq!(envelope(502, b"")["error"]["code"], UNAVAILABLE);
    }
}
