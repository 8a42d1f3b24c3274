//! Values against JSON Schema, as far as the document uses it, and stricter: an object has no key that is not told.
//!
//! The document leaves answers open, so that a later server may say more. Here the server and the document are of one
//! version, and what the one says and the other does not tell is a mistake.

use serde_json::Value;

pub(super) struct Schemas<'a> {
    pub(super) document: &'a Value,
}

/// The keys that a schema tells of, over all that it is put together from.
#[derive(Default)]
struct Known<'a> {
    names: Vec<&'a str>,
    /// Any other key may be there, too.
    is_open: bool,
}

impl Schemas<'_> {
    /// What the text is not as it must be, each with its place.
    pub(super) fn check_text(&self, text: &[u8], schema: &Value) -> Vec<String> {
        match serde_json::from_slice(text) {
            Ok(value) => self.check(&value, schema, "."),
            Err(error) => vec![format!("no JSON: {error}")],
        }
    }

    /// What a reference leads to.
    pub(super) fn resolved<'b>(&'b self, mut schema: &'b Value) -> &'b Value {
        while let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').expect("a reference into this document");
            schema = self.document.pointer(pointer).unwrap_or_else(|| panic!("no {reference}"));
        }
        schema
    }

    fn check(&self, value: &Value, schema: &Value, place: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        self.check_open(value, schema, place, &mut wrong);
        let mut known = Known::default();
        self.know(schema, &mut known);
        if let (Value::Object(fields), false) = (value, known.is_open || known.names.is_empty()) {
            let unknown = fields.keys().filter(|key| !known.names.contains(&key.as_str()));
            wrong.extend(unknown.map(|key| format!("{place}{key} is not told")));
        }
        wrong
    }

    fn know<'b>(&'b self, schema: &'b Value, known: &mut Known<'b>) {
        let schema = self.resolved(schema);
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            known.names.extend(properties.keys().map(String::as_str));
        }
        let more = schema.get("additionalProperties");
        // One of several is strict by itself.
        let is_choice = schema.get("anyOf").is_some() || schema.get("oneOf").is_some();
        known.is_open |= is_choice || more.is_some_and(|more| *more != Value::Bool(false));
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.know(part, known);
        }
    }

    fn check_open(&self, value: &Value, schema: &Value, place: &str, wrong: &mut Vec<String>) {
        let schema = self.resolved(schema);
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.check_open(value, part, place, wrong);
        }
        if let Some(choices) = schema.get("anyOf").or(schema.get("oneOf")).and_then(Value::as_array)
        {
            wrong.extend(self.check_choices(value, schema, choices, place));
        }
        if let Some(types) = schema.get("type") {
            let types = types.as_array().cloned().unwrap_or_else(|| vec![types.clone()]);
            if !types.iter().any(|one| is_of_type(value, one.as_str().unwrap())) {
                wrong.push(format!("{place} is {value}, not {types:?}"));
            }
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array)
            && !words.contains(value)
        {
            wrong.push(format!("{place} is {value}, none of {words:?}"));
        }
        if let Some(only) = schema.get("const")
            && only != value
        {
            wrong.push(format!("{place} is {value}, not {only}"));
        }
        if let (Some(least), Some(number)) =
            (schema.get("minimum").and_then(Value::as_f64), value.as_f64())
            && number < least
        {
            wrong.push(format!("{place} is {value}, less than {least}"));
        }
        match value {
            Value::Object(_) => self.check_fields(value, schema, place, wrong),
            Value::Array(values) => {
                for (at, value) in values.iter().enumerate() {
                    let items = schema.get("items").unwrap_or(&Value::Bool(true));
                    wrong.extend(self.check(value, items, &format!("{place}{at}.")));
                }
            }
            _ => {}
        }
    }

    fn check_fields(&self, value: &Value, schema: &Value, place: &str, wrong: &mut Vec<String>) {
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            let name = name.as_str().unwrap();
            if value.get(name).is_none() {
                wrong.push(format!("{place}{name} is missing"));
            }
        }
        let told = schema.get("properties").and_then(Value::as_object);
        for (key, value) in value.as_object().into_iter().flatten() {
            let of_key = told.and_then(|told| told.get(key));
            if let Some(schema) = of_key.or(schema.get("additionalProperties")) {
                wrong.extend(self.check(value, schema, &format!("{place}{key}.")));
            }
        }
    }

    /// One of the choices must fit; with a discriminator it is known which.
    fn check_choices(
        &self,
        value: &Value,
        schema: &Value,
        choices: &[Value],
        place: &str,
    ) -> Vec<String> {
        if let Some(discriminator) = schema.get("discriminator") {
            let word = &value[discriminator["propertyName"].as_str().unwrap()];
            let chosen = &discriminator["mapping"][word.as_str().unwrap_or_default()];
            if chosen.is_null() {
                return vec![format!("{place}: there is no {word}")];
            }
            return self.check(value, &serde_json::json!({"$ref": chosen}), place);
        }
        let found = choices.iter().map(|choice| self.check(value, choice, place));
        found.min_by_key(Vec::len).unwrap_or_default()
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    }
}

#[test]
fn what_is_missing_what_is_wrong_and_what_is_not_told_is_named() {
    let document = serde_json::json!({"components": {"schemas": {
        "Base": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
        "Whole": {"allOf": [
            {"$ref": "#/components/schemas/Base"},
            {"properties": {"n": {"type": ["integer", "null"], "minimum": 0}}},
        ]},
    }}});
    let schemas = Schemas { document: &document };
    let whole = &document["components"]["schemas"]["Whole"];
    let check = |text: &str| schemas.check_text(text.as_bytes(), whole).join("; ");
    assert_eq!(check(r#"{"id": "a", "n": null}"#), "");
    assert_eq!(check(r#"{"n": 1}"#), ".id is missing");
    assert_eq!(check(r#"{"id": "a", "n": -1}"#), ".n. is -1, less than 0");
    assert_eq!(check(r#"{"id": "a", "more": 1}"#), ".more is not told");
}
