//! The arguments of a call, read one by one.
//!
//! They have passed the schema of their tool, so a type that is wrong can not be here; what a schema can not say is
//! checked here: a text is not blank. Null is as good as left out. Pure.

use super::tool::ToolError;
use serde_json::Value;

pub(super) struct Arguments<'a>(pub(super) &'a Value);

impl<'a> Arguments<'a> {
    /// A text without the space around it. Errors: it is blank.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, ToolError> {
        let Some(text) = self.0[name].as_str().map(str::trim) else { return Ok(None) };
        if text.is_empty() {
            return Err(ToolError::bad_request(format!("{name}: is blank")));
        }
        Ok(Some(text))
    }

    /// A text that must be there.
    pub(super) fn needed(&self, name: &str) -> Result<&'a str, ToolError> {
        let missing = || ToolError::bad_request(format!("{name}: is missing"));
        self.text(name)?.ok_or_else(missing)
    }

    /// A number that is not negative.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.0[name].as_u64()
    }

    pub(super) fn is_on(&self, name: &str) -> bool {
        self.0[name] == true
    }

    /// A list of texts; empty when it is left out.
    pub(super) fn texts(&self, name: &str) -> Vec<&'a str> {
        self.0[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_is_there_left_out_or_blank() {
        let value = json!({"a": " x ", "b": null, "c": "  "});
        let arguments = Arguments(&value);
        assert_eq!(arguments.text("a").unwrap(), Some("x"));
        assert_eq!(arguments.text("b").unwrap(), None);
        assert_eq!(arguments.text("d").unwrap(), None);
        assert_eq!(arguments.text("c").unwrap_err().message, "c: is blank");
        assert_eq!(arguments.needed("d").unwrap_err().message, "d: is missing");
    }
}
