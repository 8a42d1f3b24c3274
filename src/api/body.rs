//! Request bodies: JSON into a type, with errors that name the field, and strict about fields that are not known.

use super::Call;
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::session::input::unknown_field;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// A client that sends this header has fields that are not known ignored.
const LENIENT: &str = "x-gooselake-lenient";

/// Where serde_json ends what nests.
const DEPTH_MAX: usize = 128;

/// The body of a route that needs none.
#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct NoFields {}

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
        check_values("the body", bytes)?;
        let mut unknown = None;
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let mut note = |path: serde_ignored::Path<'_>| {
            unknown.get_or_insert_with(|| field(&path));
        };
        let known = serde_ignored::Deserializer::new(&mut json, &mut note);
        let value: T = serde_path_to_error::deserialize(known)
            .map_err(|error| told(&error.path().to_string(), error.inner()))?;
        json.end().map_err(|error| {
            Error::bad_request(format!("the body goes on behind its JSON value: {error}"))
        })?;
        self.check_known(unknown)?;
        Ok(value)
    }

    /// Errors: an item of this input has a field that is not known.
    pub(super) fn check_items(&self, items: &[Value]) -> Result<()> {
        self.check_known(unknown_field(items))
    }

    fn check_known(&self, unknown: Option<String>) -> Result<()> {
        let is_lenient = self.head().header(LENIENT).is_some_and(|value| value == "1");
        match unknown {
            Some(field) if !is_lenient => {
                Err(Error::bad_request(format!("{field}: there is no such field here"))
                    .hint(format!("leave it out, or send {LENIENT}: 1 to have it ignored")))
            }
            _ => Ok(()),
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

/// Errors: there are more values than in any request of sense, whose memory is many times that of their text.
pub(super) fn check_values(what: &str, json: &[u8]) -> Result<()> {
    if value_count(json) <= limits::BODY_VALUES {
        return Ok(());
    }
    let text = format!("{what} holds more than {} values", limits::BODY_VALUES);
    Err(Error::new(Code::PayloadTooLarge, text))
}

/// How many values there are at most, told by the commas and opening brackets outside of texts. What lies deeper than
/// the parser goes is no value: it is refused there, or passed over.
fn value_count(json: &[u8]) -> usize {
    let (mut count, mut depth, mut is_text, mut is_escaped) = (1, 0_usize, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            _ if is_text => {}
            b'[' | b'{' => {
                depth += 1;
                count += usize::from(depth <= DEPTH_MAX);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => count += usize::from(depth <= DEPTH_MAX),
            _ => {}
        }
    }
    count
}

/// Errors: a text that records, lists and logs repeat is longer than they are made for.
pub(super) fn check_length(field: &str, text: Option<&str>, bytes_max: usize) -> Result<()> {
    match text {
        Some(text) if text.len() > bytes_max => Err(Error::bad_request(format!(
            "{field}: it has {} bytes, at most {bytes_max}",
            text.len()
        ))),
        _ => Ok(()),
    }
}

/// The same for texts of one word each.
pub(super) fn check_words<const N: usize>(fields: [(&str, &Option<String>); N]) -> Result<()> {
    fields
        .into_iter()
        .try_for_each(|(field, text)| check_length(field, text.as_deref(), limits::WORD_BYTES))
}

/// An object of texts in which no name stands twice: of two values one would be lost without a word.
pub(super) fn texts<'de, D>(
    deserializer: D,
) -> std::result::Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Texts;
    impl<'de> Visitor<'de> for Texts {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts")
        }

        fn visit_map<A: MapAccess<'de>>(
            self,
            mut map: A,
        ) -> std::result::Result<BTreeMap<String, String>, A::Error> {
            let mut texts = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                let value = map.next_value()?;
                if texts.contains_key(&name) {
                    return Err(A::Error::custom(format!("duplicate field `{name}`")));
                }
                texts.insert(name, value);
            }
            Ok(texts)
        }
    }
    deserializer.deserialize_map(Texts)
}

/// Where a field is, as whoever sent it would write it: what is optional has no step of its own.
fn field(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", field(parent)),
        Path::Map { parent, key } => match field(parent) {
            inside if inside.is_empty() => key.clone(),
            inside => format!("{inside}.{key}"),
        },
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => field(parent),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_texts() {
        for (json, count) in [
            ("1", 1),
            ("[1,2,3]", 4),
            (r#"{"a":[],"b":{"c":1}}"#, 5),
            (r#"["[,{,",2]"#, 3),
            (r#"["a\",[,",2]"#, 3),
            (r#"["a\\",2]"#, 3),
        ] {
            assert_eq!(value_count(json.as_bytes()), count, "{json}");
        }
        let deep = format!("{}1,2{},3", "[".repeat(1000), "]".repeat(1000));
        assert_eq!(value_count(deep.as_bytes()), 1 + DEPTH_MAX + 1);
    }
}
