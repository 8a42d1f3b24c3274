//! Request bodies: JSON into a type, with errors that name the field, and strict about fields that are not known.

use super::Call;
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;

/// A client that sends this header has fields that are not known ignored.
const LENIENT: &str = "x-gooselake-lenient";

impl Call {
    /// The body. Errors: not JSON, not of this shape, or with a field that is not known.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T> {
        let bytes = &self.request.body;
        if bytes.is_empty() {
            return Err(Error::bad_request("the body is empty").hint("send a JSON object"));
        }
        // A list of values in the order of our fields would be taken as well.
        if bytes.trim_ascii_start().first() == Some(&b'[') {
            return Err(Error::bad_request("the body is a JSON array").hint("send a JSON object"));
        }
        let is_lenient = self.head().header(LENIENT).is_some_and(|value| value == "1");
        let mut unknown = Vec::new();
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
        let known = serde_ignored::Deserializer::new(&mut json, &mut note);
        let value: T = serde_path_to_error::deserialize(known)
            .map_err(|error| told(&error.path().to_string(), error.inner()))?;
        json.end().map_err(|error| {
            Error::bad_request(format!("the body goes on behind its JSON value: {error}"))
        })?;
        match unknown.first() {
            Some(field) if !is_lenient => {
                Err(Error::bad_request(format!("{field}: there is no such field here"))
                    .hint(format!("leave it out, or send {LENIENT}: 1 to have it ignored")))
            }
            _ => Ok(value),
        }
    }

    /// The body, or the default when there is none. A JSON content type promises a body.
    pub(super) fn optional_body<T: DeserializeOwned + Default>(&self) -> Result<T> {
        if self.request.body.is_empty() && self.head().header("content-type").is_none() {
            return Ok(T::default());
        }
        self.body()
    }
}

/// What is wrong, with the field that it is wrong in.
fn told(path: &str, error: &serde_json::Error) -> Error {
    use serde_json::error::Category;
    let text = error.to_string();
    // "?" is where the name of a field was not read to its end.
    let is_whole = matches!(path, "." | "" | "?");
    let inside = if is_whole { String::new() } else { format!("{path}.") };
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    Error::bad_request(match (missing, error.classify()) {
        (Some(field), _) => format!("{inside}{field}: this field is needed"),
        (None, Category::Syntax | Category::Eof) if is_whole => {
            format!("the body is not JSON: {text}")
        }
        (None, _) if is_whole => format!("the body is not as it must be: {text}"),
        (None, _) => format!("{path}: {text}"),
    })
}
