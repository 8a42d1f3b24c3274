//! `multipart/form-data`: the bytes of one field of a form.
//!
//! Pure. The body is whole and bounded when it comes here; nothing is copied but what is given back. Promises: a body
//! is either read as its boundary says from its first line to its closing line, or refused with what is wrong; part
//! heads, their number and their size are bounded. It deliberately knows no nesting, no transfer encodings and no
//! charset but UTF-8: no client of ours sends them, and a form with them is refused, not guessed at.

use crate::error::{Code, Error, Result};
use crate::limits;
use std::str;

/// What a field of the form is, from the head of its part.
struct Part<'a> {
    name: String,
    body: &'a [u8],
}

/// The text of the field `name`. Errors: the form is malformed, or has no such field, or two, or it is not UTF-8.
pub fn text_field<'a>(content_type: &str, body: &'a [u8], name: &str) -> Result<&'a str> {
    let boundary = boundary(content_type)?;
    let mut found = None;
    for part in parts(&boundary, body)? {
        if part.name == name && found.replace(part.body).is_some() {
            return Err(Error::bad_request(format!("the form has two fields {name:?}")));
        }
    }
    let bytes = found.ok_or_else(|| {
        Error::bad_request(format!("the form has no field {name:?}"))
            .hint(format!("send it as multipart/form-data, as curl does with -F {name}=@path"))
    })?;
    str::from_utf8(bytes)
        .map_err(|_| Error::bad_request(format!("the field {name:?} is not UTF-8")))
}

/// The boundary that the Content-Type names.
fn boundary(content_type: &str) -> Result<String> {
    let wrong = |what: &str| {
        Err(Error::bad_request(format!("the boundary of the form {what}"))
            .hint("let the HTTP client write the Content-Type of a form by itself"))
    };
    let Some(boundary) = parameter(content_type, "boundary")? else {
        return wrong("is missing in the Content-Type");
    };
    // What RFC 2046 allows; a space at its end would be taken for padding.
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    if boundary.is_empty() || boundary.len() > 70 {
        return wrong("has not 1 to 70 characters");
    }
    if !boundary.bytes().all(is_allowed) || boundary.ends_with(' ') {
        return wrong("has a character that none can have");
    }
    Ok(boundary)
}

/// A parameter of a header value `main; name=value; name="value"`.
fn parameter(value: &str, name: &str) -> Result<Option<String>> {
    let mut rest = value.split_once(';').map_or("", |(_, rest)| rest).trim_start();
    let mut found = None;
    while !rest.is_empty() {
        let malformed = || Error::bad_request(format!("the header value `{value}` is malformed"));
        let (key, behind) = rest.split_once('=').ok_or_else(malformed)?;
        let (text, behind) = match behind.strip_prefix('"') {
            Some(quoted) => quoted_text(quoted).ok_or_else(malformed)?,
            None => {
                let end = behind.find(';').unwrap_or(behind.len());
                (behind[..end].trim_end().to_owned(), &behind[end..])
            }
        };
        if key.trim().eq_ignore_ascii_case(name) && found.replace(text).is_some() {
            return Err(malformed());
        }
        let behind = behind.trim_start();
        rest = match behind.strip_prefix(';') {
            Some(next) => next.trim_start(),
            None if behind.is_empty() => behind,
            None => return Err(malformed()),
        };
    }
    Ok(found)
}

/// The text up to the closing quote, and what is behind it.
fn quoted_text(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => text.push(letters.next()?.1),
            _ => text.push(letter),
        }
    }
    None
}

/// All parts of the form, in order.
fn parts<'a>(boundary: &str, body: &'a [u8]) -> Result<Vec<Part<'a>>> {
    let opening = format!("--{boundary}");
    let between = format!("\r\n--{boundary}");
    let mut rest = body.strip_prefix(opening.as_bytes()).ok_or_else(|| {
        Error::bad_request("the form does not begin with the boundary of its Content-Type")
    })?;
    let mut parts = Vec::new();
    loop {
        if let Some(behind) = rest.strip_prefix(b"--") {
            if behind.is_empty() || behind == b"\r\n" {
                return Ok(parts);
            }
            return Err(Error::bad_request("the form goes on behind its closing boundary"));
        }
        let Some(part) = rest.strip_prefix(b"\r\n") else {
            return Err(Error::bad_request("a boundary of the form is not a line of its own"));
        };
        if parts.len() == limits::MULTIPART_PARTS {
            return Err(Error::new(
                Code::PayloadTooLarge,
                format!("the form has more than {} fields", limits::MULTIPART_PARTS),
            ));
        }
        let end = find(part, between.as_bytes())
            .ok_or_else(|| Error::bad_request("the form has no closing boundary"))?;
        parts.push(self::part(&part[..end])?);
        rest = &part[end + between.len()..];
    }
}

/// Takes the head off a part.
fn part(bytes: &[u8]) -> Result<Part<'_>> {
    let room = &bytes[..bytes.len().min(limits::MULTIPART_HEAD_BYTES)];
    let end = find(room, b"\r\n\r\n").ok_or_else(|| {
        Error::bad_request(format!(
            "a part of the form has no head of at most {} bytes",
            limits::MULTIPART_HEAD_BYTES
        ))
    })?;
    let head = str::from_utf8(&bytes[..end])
        .map_err(|_| Error::bad_request("the head of a part of the form is not UTF-8"))?;
    let mut name = None;
    for line in head.split("\r\n") {
        let (field, value) = line.split_once(':').ok_or_else(|| {
            Error::bad_request("a line in the head of a part of the form has no colon")
        })?;
        match field.trim().to_ascii_lowercase().as_str() {
            "content-disposition" => {
                if name.is_some() || !has_main(value, "form-data") {
                    return Err(Error::bad_request("a part of the form is no form-data"));
                }
                name = Some(parameter(value, "name")?.unwrap_or_default());
            }
            "content-type" => check_type(value)?,
            "content-transfer-encoding" if !is_plain(value) => {
                return Err(Error::bad_request(format!(
                    "a part of the form has the transfer encoding {:?}",
                    value.trim()
                ))
                .hint("send the bytes as they are"));
            }
            _ => {}
        }
    }
    let name = name.filter(|name| !name.is_empty()).ok_or_else(|| {
        Error::bad_request("a part of the form has no Content-Disposition with a name")
    })?;
    Ok(Part { name, body: &bytes[end + 4..] })
}

fn has_main(value: &str, main: &str) -> bool {
    value.split(';').next().is_some_and(|first| first.trim().eq_ignore_ascii_case(main))
}

fn is_plain(encoding: &str) -> bool {
    ["7bit", "8bit", "binary"].iter().any(|plain| encoding.trim().eq_ignore_ascii_case(plain))
}

fn check_type(value: &str) -> Result<()> {
    let main = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if main.starts_with("multipart/") || main.starts_with("message/") {
        return Err(Error::bad_request(format!("a part of the form is {main:?}"))
            .hint("send each file as a field of its own"));
    }
    match parameter(value, "charset")? {
        Some(charset)
            if !["utf-8", "utf8", "us-ascii"].contains(&&*charset.to_ascii_lowercase()) =>
        {
            Err(Error::bad_request(format!("a part of the form is in the charset {charset:?}"))
                .hint("send UTF-8"))
        }
        _ => Ok(()),
    }
}

/// Where the needle is. It is short and the bytes are bounded, so every place is tried.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=xyz";
    const HEAD: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.json\"\r\n";

    fn form(parts: &[&str]) -> String {
        let parts: String = parts.iter().map(|part| format!("--xyz\r\n{part}\r\n")).collect();
        format!("{parts}--xyz--\r\n")
    }

    fn refused(content_type: &str, body: impl AsRef<[u8]>) -> String {
        text_field(content_type, body.as_ref(), "file").unwrap_err().message
    }

    #[test]
    fn the_field_is_found_among_others() {
        let other = "Content-Disposition: form-data; name=other\r\n\r\nnot this";
        let own =
            format!("{HEAD}Content-Type: application/json; charset=UTF-8\r\n\r\n{{\"a\":\r\n1}}");
        let body = form(&[other, &own]);
        assert_eq!(text_field(TYPE, body.as_bytes(), "file").unwrap(), "{\"a\":\r\n1}");
        let quoted = "Multipart/Form-Data; charset=x; boundary=\"xyz\"";
        assert!(text_field(quoted, body.as_bytes(), "file").is_ok());
        let without_last_line_end = body.trim_end();
        assert!(text_field(TYPE, without_last_line_end.as_bytes(), "file").is_ok());
        let empty = form(&[&format!("{HEAD}\r\n")]);
        assert_eq!(text_field(TYPE, empty.as_bytes(), "file").unwrap(), "");
    }

    #[test]
    fn what_only_looks_like_a_boundary_is_content() {
        let own = format!("{HEAD}\r\n--xy\r\n-xyz\nxyz--");
        let body = form(&[&own]);
        assert_eq!(text_field(TYPE, body.as_bytes(), "file").unwrap(), "--xy\r\n-xyz\nxyz--");
    }

    #[test]
    fn a_boundary_that_is_none_is_told() {
        let body = form(&[&format!("{HEAD}\r\nx")]);
        for (content_type, told) in [
            ("multipart/form-data", "is missing"),
            ("multipart/form-data; boundary=", "1 to 70"),
            ("multipart/form-data; boundary=\"\"", "1 to 70"),
            (&format!("multipart/form-data; boundary={}", "x".repeat(71)), "1 to 70"),
            ("multipart/form-data; boundary=\"x\\\"z\"", "a character"),
            ("multipart/form-data; boundary=\"xyz", "malformed"),
            ("multipart/form-data; boundary=xyz; boundary=abc", "malformed"),
            ("multipart/form-data; boundary=\"xyz\" abc", "malformed"),
            ("multipart/form-data; boundary", "malformed"),
            ("multipart/form-data; boundary=abc", "does not begin"),
        ] {
            let message = refused(content_type, &body);
            assert!(message.contains(told), "{content_type}: {message}");
        }
    }

    #[test]
    fn a_form_that_is_cut_or_goes_on_is_told() {
        let own = format!("{HEAD}\r\nx");
        let whole = form(&[&own]);
        for (body, told) in [
            (String::new(), "does not begin"),
            (format!("preamble\r\n{whole}"), "does not begin"),
            (format!("--xyz\r\n{own}"), "no closing boundary"),
            (format!("--xyz\r\n{own}\r\n--xyz"), "not a line"),
            (format!("--xyz\r\n{own}\r\n--xyz-"), "not a line"),
            (format!("--xyz\r\n{own}\r\n--xyzz\r\n"), "not a line"),
            (format!("--xyz {own}\r\n--xyz--"), "not a line"),
            (format!("{whole}--xyz--"), "goes on"),
            ("--xyz--\r\n".to_owned(), "no field"),
            (whole.replace("\r\n", "\n"), "not a line"),
        ] {
            let message = refused(TYPE, &body);
            assert!(message.contains(told), "{body:?}: {message}");
        }
        // Every cut of a good form is refused, whatever it leaves.
        for length in 0..whole.trim_end().len() {
            assert!(text_field(TYPE, &whole.as_bytes()[..length], "file").is_err(), "{length}");
        }
    }

    #[test]
    fn parts_that_are_not_understood_are_told() {
        for (part, told) in [
            ("no head at all".to_owned(), "no head"),
            (format!("{}: x\r\n\r\nx", "x".repeat(5000)), "no head"),
            ("no colon here\r\n\r\nx".to_owned(), "no colon"),
            ("Content-Type: text/plain\r\n\r\nx".to_owned(), "no Content-Disposition"),
            ("Content-Disposition: form-data\r\n\r\nx".to_owned(), "no Content-Disposition"),
            ("Content-Disposition: attachment; name=file\r\n\r\nx".to_owned(), "no form-data"),
            (format!("{HEAD}{HEAD}\r\nx"), "no form-data"),
            (
                format!("{HEAD}Content-Type: multipart/mixed; boundary=abc\r\n\r\nx"),
                "multipart/mixed",
            ),
            (format!("{HEAD}Content-Type: message/rfc822\r\n\r\nx"), "message/rfc822"),
            (format!("{HEAD}Content-Type: text/plain; charset=utf-16\r\n\r\nx"), "utf-16"),
            (format!("{HEAD}Content-Transfer-Encoding: base64\r\n\r\nx"), "base64"),
        ] {
            let message = refused(TYPE, form(&[&part]));
            assert!(message.contains(told), "{part:.60}: {message}");
        }
        let own = format!("{HEAD}\r\nx");
        assert!(refused(TYPE, form(&[&own, &own])).contains("two fields"));
        let many = vec![own.as_str(); limits::MULTIPART_PARTS + 1];
        assert!(refused(TYPE, form(&many)).contains("more than"));
        let mut latin = form(&[&format!("{HEAD}\r\n?")]).into_bytes();
        let place = latin.iter().position(|byte| *byte == b'?').unwrap();
        latin[place] = 0xe4;
        assert!(refused(TYPE, latin).contains("not UTF-8"));
    }
}
