//! HTTP/1.1 as the mock needs it: reading a request, writing an answer.
//!
//! Owns: framing. Runs on the thread of its connection. Promises: heads and bodies are bounded, a
//! request is read to its end or the connection is given up. Deliberately knows no route, and no
//! compressed bodies: none of the agents sends one, and one that did gets a 415.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// The most bytes of a request's head, of a line of it, and of a chunk's size line.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The most headers of a request.
const HEADERS_MAX: usize = 100;
/// The most bytes of a body. Agents send their whole history with each request, images too.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long each read may take once the client was told off.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// A request.
#[derive(Debug)]
pub struct Request {
    /// The method, as sent.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The headers; the names are in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the client wants no further request on this connection.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Reads the next request; none when the client has closed between two.
/// Errors: the socket failed, or what came is no request or beyond a bound (`InvalidData`).
pub fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let Some(head) = read_head(reader)? else { return Ok(None) };
    let mut request = parse_head(&head)?;
    if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let is_chunked = request.header("transfer-encoding").is_some();
    request.body = match request.header("content-length") {
        _ if is_chunked => read_chunks(reader)?,
        None => Vec::new(),
        Some(length) => {
            let length = length.parse().map_err(|_| bad("a Content-Length that is no number"))?;
            read_exactly(reader, length)?
        }
    };
    Ok(Some(request))
}

fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    loop {
        let begin = head.len();
        read_line(reader, &mut head)?;
        match &head[begin..] {
            [] if begin == 0 => return Ok(None),
            [] => return Err(io::ErrorKind::UnexpectedEof.into()),
            b"\r\n" | b"\n" if begin > 0 => return Ok(Some(head)),
            _ if head.len() > HEAD_BYTES_MAX => return Err(bad("a head beyond the bound")),
            _ => {}
        }
    }
}

fn read_line(reader: &mut BufReader<TcpStream>, line: &mut Vec<u8>) -> io::Result<usize> {
    reader.by_ref().take(HEAD_BYTES_MAX as u64).read_until(b'\n', line)
}

fn parse_head(head: &[u8]) -> io::Result<Request> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(bad("half a head")),
        Err(error) => return Err(bad(&error.to_string())),
    }
    let target = parsed.path.unwrap_or("/");
    let header = |header: &httparse::Header<'_>| {
        let value = String::from_utf8_lossy(header.value).trim().to_owned();
        (header.name.to_ascii_lowercase(), value)
    };
    Ok(Request {
        method: parsed.method.unwrap_or("").to_owned(),
        path: target.split('?').next().unwrap_or(target).to_owned(),
        headers: parsed.headers.iter().map(header).collect(),
        body: Vec::new(),
    })
}

fn read_chunks(reader: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        read_line(reader, &mut line)?;
        let text = String::from_utf8_lossy(&line);
        let size = text.split(';').next().unwrap_or("").trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| bad("a chunk without a size"))?;
        if size == 0 {
            break;
        }
        if size > BODY_BYTES_MAX - body.len() {
            return Err(bad("a body beyond the bound"));
        }
        body.extend(read_exactly(reader, size)?);
        if read_exactly(reader, 2)? != b"\r\n" {
            return Err(bad("a chunk that does not end"));
        }
    }
    // Trailers, up to the empty line.
    let mut trailers = Vec::new();
    loop {
        let begin = trailers.len();
        read_line(reader, &mut trailers)?;
        match &trailers[begin..] {
            b"\r\n" | b"\n" => return Ok(body),
            [] => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if trailers.len() > HEAD_BYTES_MAX => return Err(bad("trailers beyond the bound")),
            _ => {}
        }
    }
}

/// Reads so many bytes. Memory grows with what comes, not with what was announced.
fn read_exactly(reader: &mut BufReader<TcpStream>, bytes: usize) -> io::Result<Vec<u8>> {
    if bytes > BODY_BYTES_MAX {
        return Err(bad("a body beyond the bound"));
    }
    let mut body = Vec::new();
    reader.by_ref().take(bytes as u64).read_to_end(&mut body)?;
    match body.len() == bytes {
        true => Ok(body),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes a whole answer. A HEAD request gets the head alone.
pub fn write_json(
    stream: &mut TcpStream,
    status: u16,
    body: &Value,
    is_head: bool,
) -> io::Result<()> {
    let body = body.to_string();
    let mut answer = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        reason(status),
        body.len()
    );
    if !is_head {
        answer.push_str(&body);
    }
    stream.write_all(answer.as_bytes())
}

/// Begins a stream of events.
pub fn begin_stream(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
          Transfer-Encoding: chunked\r\n\r\n",
    )
}

/// Writes one event as a chunk of its own, so that it is on its way at once.
pub fn write_chunk(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
}

/// Ends a stream.
pub fn end_stream(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"0\r\n\r\n")
}

/// Leaves a client in the middle of its request: reads on for a moment without keeping anything,
/// since closing over unread bytes would take the answer back from under it.
pub fn leave(reader: &mut BufReader<TcpStream>) -> io::Result<()> {
    reader.get_ref().shutdown(Shutdown::Write)?;
    reader.get_ref().set_read_timeout(Some(LEAVE_MAX))?;
    io::copy(&mut reader.by_ref().take(BODY_BYTES_MAX as u64), &mut io::sink())?;
    Ok(())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        415 => "Unsupported Media Type",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Mock",
    }
}
