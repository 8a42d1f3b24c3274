//! The request target: its path as segments, its query as pairs.
//!
//! Owns: the splitting and the strict percent-decoding. Pure functions, called on connection
//! threads while a head is parsed. Segments are split before they are decoded, so an encoded slash
//! stays inside its segment. Promises: what is not valid percent-encoding of UTF-8 text is a 400,
//! never a guess. It deliberately does not resolve `.` and `..`: no path of ours names a file.

use crate::error::{Error, Result};

/// The decoded segments of a raw path that starts with a slash. `/` has none; a slash at the end
/// gives an empty last segment.
pub(super) fn path(raw: &str) -> Result<Vec<String>> {
    let inner = raw.strip_prefix('/').unwrap_or(raw);
    if inner.is_empty() {
        return Ok(Vec::new());
    }
    inner.split('/').map(|segment| decode(segment, false)).collect()
}

/// The decoded pairs of a raw query, in order, without the question mark. A name without `=` has
/// the empty value; empty pieces (`a=1&&b=2`) are skipped; `+` is a space, as forms write it.
pub(super) fn query(raw: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for piece in raw.split('&').filter(|piece| !piece.is_empty()) {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        pairs.push((decode(name, true)?, decode(value, true)?));
    }
    Ok(pairs)
}

fn decode(raw: &str, plus_is_space: bool) -> Result<String> {
    if !raw.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Ok(raw.to_owned());
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex_pair(rest.next(), rest.next()).ok_or_else(|| bad_escape(raw))?,
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| {
        Error::bad_request(format!("`{raw}` in the request target is not UTF-8 once decoded"))
    })
}

/// The byte of two hex digits. None also for `%00`: no name, id or text of ours has a NUL, and what
/// reads text up to one would see another value than we checked.
fn hex_pair(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let byte = u8::try_from(digit(high)? * 16 + digit(low)?).ok()?;
    (byte != 0).then_some(byte)
}

fn bad_escape(raw: &str) -> Error {
    Error::bad_request(format!("`{raw}` in the request target has a bad percent escape"))
        .hint("write a percent sign as %25")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_path(raw: &str, expected: &[&str]) {
        assert_eq!(path(raw).unwrap(), expected, "{raw}");
    }

    fn check_query(raw: &str, expected: &[(&str, &str)]) {
        let pairs = query(raw).unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, expected, "{raw}");
    }

    #[test]
    fn a_path_is_split_before_it_is_decoded() {
        check_path("/", &[]);
        check_path("/v1/sessions", &["v1", "sessions"]);
        check_path("/v1/sessions/", &["v1", "sessions", ""]);
        check_path("//a", &["", "a"]);
        check_path("/a%2Fb/c", &["a/b", "c"]);
        check_path("/a+b/%C3%A4", &["a+b", "ä"]);
        check_path("/a/../b", &["a", "..", "b"]);
    }

    #[test]
    fn a_query_keeps_order_and_repeats() {
        check_query("", &[]);
        check_query("a=1&b=2&a=3", &[("a", "1"), ("b", "2"), ("a", "3")]);
        check_query("flag&&x=", &[("flag", ""), ("x", "")]);
        check_query("t=a+b%2Bc%26d%3De", &[("t", "a b+c&d=e")]);
        check_query("n=a=b", &[("n", "a=b")]);
        check_query("nl=%0A", &[("nl", "\n")]);
    }

    #[test]
    fn what_does_not_decode_is_refused() {
        for raw in ["/%zz", "/%", "/%4", "/%+1", "/%c3", "/%ff", "/%00", "/a%0"] {
            assert_eq!(path(raw).unwrap_err().code.as_str(), "bad_request", "{raw}");
        }
        for raw in ["a=%zz", "%=1", "a=%ff"] {
            assert_eq!(query(raw).unwrap_err().code.as_str(), "bad_request", "{raw}");
        }
    }
}
