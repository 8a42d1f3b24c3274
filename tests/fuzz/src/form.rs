//! The rules of forms, for any bytes: the first line is the Content-Type, the rest is the body.

use gooselake::api::multipart;

pub(crate) fn check(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let content_type = String::from_utf8_lossy(&input[..end]);
    let body = input.get(end + 1..).unwrap_or_default();
    match multipart::text_field(&content_type, body, "file") {
        Ok(text) => {
            let is_inside =
                text.is_empty() || body.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(is_inside, "a text that is not in the form");
        }
        Err(error) => assert!(!error.message.is_empty()),
    }
}
