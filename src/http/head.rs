//! What a request's head says.
//!
//! Owns: the parsing of one complete head into a [`Head`], and the decision how the body is framed
//! and whether the connection goes on. Pure, called on connection threads. Promises: a head that
//! two readers could understand differently (two lengths, a length and chunks, folded lines, a
//! space before a colon, two hosts, two tokens or origins) is refused. It deliberately does not judge methods, paths or
//! hosts: that is the handler's business.

use super::HEADERS_MAX;
use super::target;
use crate::error::{Code, Error, Result};
use std::mem::MaybeUninit;
use std::net::SocketAddr;

/// The head of a request. Header fields are looked up in the text as it came, which costs no
/// allocation per field.
#[derive(Debug)]
pub struct Head {
    /// The checked head, ASCII, with every line end.
    text: String,
    method_bytes: usize,
    target_bytes: usize,
    /// The segments of the path, split first and then percent-decoded; empty for `/` and `*`.
    pub path: Vec<String>,
    /// The percent-decoded pairs of the query, in order.
    pub query: Vec<(String, String)>,
    pub peer: SocketAddr,
    /// HTTP/1.1; else it is HTTP/1.0.
    pub http11: bool,
    pub(super) framing: Framing,
}

/// What the connection has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing {
    pub(super) length: Length,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// The connection takes another request after this one.
    pub(super) keeps_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    None,
    Fixed(u64),
    Chunked,
}

impl Head {
    /// Parses a complete head: from its request line up to and with its empty line. Connections
    /// look for its end, and refuse all but printable ASCII in lines that end in CRLF; no other
    /// bytes make this panic, but what it reads in them is not checked in every way.
    pub fn parse(bytes: &[u8], headers_max: usize, peer: SocketAddr) -> Result<Head> {
        let mut slots = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let slots = &mut slots[..headers_max.min(HEADERS_MAX)];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, slots) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            // The caller has found the empty line, so a parser that wants more, or stops earlier,
            // saw something else than the caller did.
            Ok(_) => return Err(Error::bad_request("the request head is malformed")),
            Err(error) => return Err(malformed(error)),
        }
        let (Some(method), Some(raw), Some(version)) =
            (request.method, request.path, request.version)
        else {
            return Err(Error::bad_request("the request line is malformed"));
        };
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Error::bad_request("the request head is not ASCII"))?;
        if !text.starts_with(method) {
            // The parser steps over empty lines; the places below are counted from the start.
            return Err(Error::bad_request("the request begins with an empty line"));
        }
        let target = Target::parse(method, raw)?;
        let (path, query) = (target::path(target.path)?, target::query(target.query)?);
        let http11 = version == 1;
        let framing = read_fields(fields_of(text), http11, target.authority)?;
        Ok(Head {
            text: text.to_owned(),
            method_bytes: method.len(),
            target_bytes: raw.len(),
            path,
            query,
            peer,
            http11,
            framing,
        })
    }

    /// The method token as it came; methods are case-sensitive.
    pub fn method(&self) -> &str {
        &self.text[..self.method_bytes]
    }

    /// The raw request target.
    pub fn target(&self) -> &str {
        let start = self.method_bytes + 1;
        &self.text[start..start + self.target_bytes]
    }

    /// The header fields in order, names as they came, values without the space around them.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        fields_of(&self.text)
    }

    /// The value of the first header field with this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of the first query pair with this name.
    pub fn query_value(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(pair, _)| pair == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn is_head(&self) -> bool {
        self.method() == "HEAD"
    }
}

/// The parts of a request target.
struct Target<'a> {
    /// Of the absolute form only.
    authority: Option<&'a str>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Target<'a> {
    fn parse(method: &str, raw: &'a str) -> Result<Target<'a>> {
        if raw.contains('#') {
            return Err(Error::bad_request("the request target has a fragment (`#`)"));
        }
        if raw == "*" && method == "OPTIONS" {
            return Ok(Target { authority: None, path: "/", query: "" });
        }
        let (authority, local) = match raw.split_once("://") {
            _ if raw.starts_with('/') => (None, raw),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                (Some(&rest[..end]), &rest[end..])
            }
            _ => {
                return Err(Error::bad_request(format!(
                    "the request target `{raw}` is not a path"
                ))
                .hint("it starts with a slash"));
            }
        };
        let (path, query) = local.split_once('?').unwrap_or((local, ""));
        Ok(Target { authority, path, query })
    }
}

/// The fields of a head whose syntax was checked: each line has a colon after a token.
fn fields_of(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("\r\n").skip(1).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name, value.trim_matches([' ', '\t'])))
    })
}

/// Fields that the handler decides by, of which it reads the first: a proxy that reads the last would let another
/// request pass than the one that is served.
const DECISIVE: &[&str] =
    &["Authorization", "Origin", "Content-Type", "Content-Encoding", "Idempotency-Key"];

/// Reads the fields that belong to this layer, all in one pass.
fn read_fields<'a>(
    fields: impl Iterator<Item = (&'a str, &'a str)>,
    http11: bool,
    authority: Option<&str>,
) -> Result<Framing> {
    let (mut host, mut length, mut is_chunked) = (None, None, false);
    let (mut says_close, mut says_keep_alive, mut expects_continue) = (false, false, false);
    let mut seen = [false; DECISIVE.len()];
    for (name, value) in fields {
        if let Some(place) = DECISIVE.iter().position(|field| name.eq_ignore_ascii_case(field))
            && std::mem::replace(&mut seen[place], true)
        {
            let text = format!("the request has two {} fields", DECISIVE[place]);
            return Err(Error::bad_request(text));
        }
        if name.eq_ignore_ascii_case("host") {
            if host.replace(value).is_some() {
                return Err(Error::bad_request("the request has two Host fields"));
            }
        } else if name.eq_ignore_ascii_case("content-length") {
            if length.replace(content_length(value)?).is_some() {
                return Err(Error::bad_request("the request has two Content-Length fields"));
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if is_chunked || !http11 || !value.eq_ignore_ascii_case("chunked") {
                return Err(Error::bad_request(format!(
                    "Transfer-Encoding `{value}` is not taken"
                ))
                .hint("send `chunked` alone and once, over HTTP/1.1, or a Content-Length"));
            }
            is_chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            for option in value.split(',').map(str::trim) {
                says_close |= option.eq_ignore_ascii_case("close");
                says_keep_alive |= option.eq_ignore_ascii_case("keep-alive");
            }
        } else if name.eq_ignore_ascii_case("expect") {
            expects_continue |= http11 && value.eq_ignore_ascii_case("100-continue");
        }
    }
    check_host(host, http11, authority)?;
    let length = match (length, is_chunked) {
        (Some(_), true) => {
            return Err(Error::bad_request("a request has Content-Length or chunks, not both"));
        }
        (Some(0) | None, false) => Length::None,
        (Some(bytes), false) => Length::Fixed(bytes),
        (None, true) => Length::Chunked,
    };
    let keeps_alive = !says_close && (http11 || says_keep_alive);
    Ok(Framing { length, expects_continue, keeps_alive })
}

/// Digits alone: `+5`, `5, 5`, an empty value and what does not fit in 64 bits are refused.
fn content_length(value: &str) -> Result<u64> {
    let is_digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse() {
        Ok(bytes) if is_digits => Ok(bytes),
        _ => Err(Error::bad_request(format!("Content-Length `{value}` is not a number of bytes"))),
    }
}

/// One plain host on HTTP/1.1, and the same in the target if the target names one. Which hosts are
/// good is the handler's business, and it has to be able to trust the one field it looks at.
fn check_host(host: Option<&str>, http11: bool, authority: Option<&str>) -> Result<()> {
    let Some(host) = host else {
        if http11 || authority.is_some() {
            return Err(Error::bad_request("the request has no Host field"));
        }
        return Ok(());
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_plain) {
        return Err(Error::bad_request(format!("`{host}` in the Host field is not a host")));
    }
    if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(host)) {
        return Err(Error::bad_request("the request target and the Host field name two hosts"));
    }
    Ok(())
}

fn malformed(error: httparse::Error) -> Error {
    match error {
        httparse::Error::TooManyHeaders => {
            Error::new(Code::HeadTooLarge, "the request has too many header fields")
        }
        error => Error::bad_request(format!("the request head is malformed: {error}")),
    }
}
