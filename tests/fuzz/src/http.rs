//! The rules of HTTP, for any bytes.
//!
//! `head` is the parser of one head. `connection` is a real server on loopback, one for the whole process, whose
//! handler says what it saw: the same bytes in one piece and in two must be the same requests, every answer is whole,
//! nothing follows an answer that closes, and the connection ends by itself.

use gooselake::http::{Admission, Answer, Handler, Head, Limits, Request, Response, Server};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
const HEADERS_MAX: usize = 16;
/// What is sent at once must fit between two sockets, since nobody reads meanwhile.
const INPUT_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 2048;
/// Only a server that hangs takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn head(input: &[u8]) {
    let Ok(head) = Head::parse(input, HEADERS_MAX, PEER) else { return };
    // Connections let no other bytes come so far.
    let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    let is_line =
        |line: &[u8]| line.strip_suffix(b"\r\n").is_some_and(|line| line.iter().all(is_text));
    if !input.split_inclusive(|byte| *byte == b'\n').all(is_line) {
        return;
    }
    let fields: Vec<(&str, &str)> = head.headers().collect();
    assert!(fields.len() <= HEADERS_MAX, "{} fields", fields.len());
    for (name, value) in &fields {
        assert!(!name.is_empty() && !name.contains(char::is_whitespace), "the field {name:?}");
        assert!(!value.contains(['\r', '\n', '\0']), "the value {value:?}");
    }
    assert!(fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host")).count() <= 1);
    let is_plain = |text: &str| !text.is_empty() && !text.contains([' ', '\r', '\n']);
    assert!(is_plain(head.method()) && is_plain(head.target()), "{head:?}");
    assert!(head.path.iter().all(|part| !part.contains('\0')), "{head:?}");
    // What was read says the same when it is written anew.
    let version = if head.http11 { "1.1" } else { "1.0" };
    let mut again = format!("{} {} HTTP/{version}\r\n", head.method(), head.target());
    fields.iter().for_each(|(name, value)| again.push_str(&format!("{name}: {value}\r\n")));
    again.push_str("\r\n");
    let second = Head::parse(again.as_bytes(), HEADERS_MAX, PEER).expect("it was good");
    assert_eq!((&head.path, &head.query), (&second.path, &second.query));
    assert!(second.headers().eq(fields), "{again:?}");
}

pub(crate) fn connection(input: &[u8]) {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let bytes = &bytes[..bytes.len().min(INPUT_BYTES_MAX)];
    let whole = seen(&[bytes]);
    let cut = usize::from(cut) * bytes.len() / 256;
    let pieces = seen(&[&bytes[..cut], &bytes[cut..]]);
    assert_eq!(whole, pieces, "cut at {cut}");
}

/// Says back what it saw, so that two readings can be compared.
struct Echo;

impl Handler for Echo {
    fn admit(&self, head: &Head) -> Result<Admission, Answer> {
        if head.method() == "REFUSE" {
            return Err(Answer::Whole(Response::text(403, "no".to_owned())));
        }
        Ok(Admission { body_bytes_max: BODY_BYTES_MAX })
    }

    fn handle(&self, request: Request) -> Answer {
        let Request { head, body, .. } = request;
        assert!(body.len() <= BODY_BYTES_MAX, "a body of {} bytes", body.len());
        let sum = body.iter().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add((*b).into()));
        let fields = head.headers().count();
        let text = format!(
            "{} {:?} {:?} {fields} {} {sum}\n",
            head.method(),
            head.path,
            head.query,
            body.len()
        );
        Answer::Whole(Response::text(200, text))
    }
}

fn address() -> SocketAddr {
    static SERVER: OnceLock<(Server, SocketAddr)> = OnceLock::new();
    let (_, address) = SERVER.get_or_init(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits { headers: HEADERS_MAX, ..Limits::default() };
        (Server::start(listener, limits, Arc::new(Echo)).unwrap(), address)
    });
    *address
}

/// What the server answers to these pieces: status and body of each answer.
fn seen(pieces: &[&[u8]]) -> Vec<(u16, String)> {
    let mut stream = TcpStream::connect(address()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The server may have refused what came and closed; what it answered is there all the same.
    let sent = pieces.iter().try_for_each(|piece| stream.write_all(piece));
    drop(sent.and_then(|()| stream.shutdown(Shutdown::Write)));
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    if let Err(error) = end {
        assert!(error.kind() != std::io::ErrorKind::WouldBlock, "the connection does not end");
    }
    let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut rest = bytes.as_slice();
    let mut answers = Vec::new();
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix(go_on) {
            rest = behind;
            continue;
        }
        let is_head = !rest.starts_with(b"HTTP/1.1 ");
        assert!(!is_head, "no answer: {:?}", String::from_utf8_lossy(rest));
        let (status, is_last, body, behind) = answer(rest);
        // What is wrong in two ways is told as the one that was seen first.
        answers.push((status, if status == 200 { body } else { String::new() }));
        assert!(!is_last || behind.is_empty(), "more behind an answer that closes");
        rest = behind;
    }
    answers
}

/// The first answer: its status, whether it closes, its body, and what is behind it.
fn answer(bytes: &[u8]) -> (u16, bool, String, &[u8]) {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head is whole");
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let behind = &bytes[end + 4..];
    let status: u16 = head[9..12].parse().unwrap();
    let field = |name: &str| {
        head.split("\r\n").find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    };
    let length: usize = field("content-length").expect("an answer has a length").parse().unwrap();
    let is_last = field("connection") == Some("close");
    // An answer to HEAD has the length of a body that does not come; no body begins like an answer.
    let is_bare = behind.is_empty() || behind.starts_with(b"HTTP/1.1 ");
    let taken = if is_bare { 0 } else { length };
    assert!(taken <= behind.len(), "a body is cut off");
    (status, is_last, String::from_utf8_lossy(&behind[..taken]).into_owned(), &behind[taken..])
}
