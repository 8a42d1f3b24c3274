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
        let is_lenient = self.head().header(LENIENT).is_some_and(|value| value == "1");
        let mut unknown = Vec::new();
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
        let known = serde_ignored::Deserializer::new(&mut json, &mut note);
        let value: T = serde_path_to_error::deserialize(known).map_err(|error| {
            let field = error.path().to_string();
            let told = error.inner().to_string();
            match field.as_str() {
                "." | "" => Error::bad_request(format!("the body is not as it must be: {told}")),
                _ => Error::bad_request(format!("{field}: {told}")),
            }
        })?;
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
