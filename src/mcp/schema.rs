//! Arguments against the schema that the caller was shown.
//!
//! Knows the words of JSON Schema that our tools use, and no more: `type` (one or several), `properties`, `required`,
//! `additionalProperties: false`, `items`, `enum`, `minLength`, `minItems`, `minimum`. A schema with another word that
//! would forbid something is a defect, which a test of the table finds. Pure.

use serde_json::{Map, Value};

/// Checks a tool's arguments. Errors: what is wrong, with the name of the argument, in words for the caller.
pub(super) fn check(schema: &Value, arguments: &Value) -> Result<(), String> {
    let Some(fields) = arguments.as_object() else {
        return Err("args must be an object".to_owned());
    };
    check_fields(schema, fields, "")
}

fn check_fields(schema: &Value, fields: &Map<String, Value>, path: &str) -> Result<(), String> {
    let nothing = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&nothing);
    let place =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if fields.get(name).is_none_or(Value::is_null) {
            return Err(format!("{}: is missing", place(name)));
        }
    }
    for (name, value) in fields {
        match properties.get(name) {
            // As good as left out; those that are needed are looked at above.
            Some(_) if value.is_null() => {}
            Some(schema) => check_value(schema, value, &place(name))?,
            None if schema["additionalProperties"] == false => {
                let names: Vec<&str> = properties.keys().map(String::as_str).collect();
                let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                return Err(format!(
                    "{}: there is no such argument; there are: {known}",
                    place(name)
                ));
            }
            None => {}
        }
    }
    Ok(())
}

fn check_value(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let types: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is_of(value, name)) {
        let words: Vec<&str> = types.iter().map(|name| word(name)).collect();
        return Err(format!("{path}: must be {}", words.join(" or ")));
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        let choices: Vec<String> = choices.iter().map(Value::to_string).collect();
        return Err(format!("{path}: must be one of {}", choices.join(", ")));
    }
    match value {
        Value::String(text) => {
            let least = schema["minLength"].as_u64().unwrap_or(0);
            if text.chars().count() as u64 >= least {
                return Ok(());
            }
            Err(format!("{path}: must not be shorter than {least}"))
        }
        Value::Array(values) => {
            let least = schema["minItems"].as_u64().unwrap_or(0);
            if (values.len() as u64) < least {
                return Err(format!("{path}: must have {least} or more"));
            }
            values.iter().enumerate().try_for_each(|(place, value)| {
                check_value(&schema["items"], value, &format!("{path}[{place}]"))
            })
        }
        Value::Number(number) => match (schema["minimum"].as_f64(), number.as_f64()) {
            (Some(least), Some(number)) if number < least => {
                Err(format!("{path}: must be at least {least}"))
            }
            _ => Ok(()),
        },
        Value::Object(fields) => check_fields(schema, fields, path),
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    }
}

fn word(name: &str) -> &str {
    match name {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "an object",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_are_taken_or_the_wrong_one_is_named() {
        let schema = json!({
            "type": "object",
            "properties": {
                "text": {"type": "string", "minLength": 1},
                "count": {"type": "integer", "minimum": 1},
                "kind": {"type": ["string", "null"], "enum": ["a", "b", null]},
                "list": {"type": "array", "minItems": 1, "items": {"type": "string"}},
                "deep": {"type": "object", "properties": {"flag": {"type": "boolean"}},
                    "required": ["flag"], "additionalProperties": false},
            },
            "required": ["text"],
            "additionalProperties": false,
        });
        let told = |arguments: Value| check(&schema, &arguments).err().unwrap_or_default();
        for good in [
            json!({"text": "x"}),
            json!({"text": "x", "count": null}),
            json!({"text": "x", "count": 1, "kind": null, "list": ["a"], "deep": {"flag": true}}),
        ] {
            assert_eq!(told(good), "");
        }
        for (wrong, expected) in [
            (json!([]), "args must be an object"),
            (json!({}), "text: is missing"),
            (json!({"text": null}), "text: is missing"),
            (json!({"text": 7}), "text: must be a text"),
            (json!({"text": ""}), "text: must not be shorter than 1"),
            (json!({"text": "x", "count": "1"}), "count: must be a whole number"),
            (json!({"text": "x", "count": 1.5}), "count: must be a whole number"),
            (json!({"text": "x", "count": 0}), "count: must be at least 1"),
            (json!({"text": "x", "kind": "c"}), "kind: must be one of \"a\", \"b\", null"),
            (json!({"text": "x", "list": []}), "list: must have 1 or more"),
            (json!({"text": "x", "list": ["a", 2]}), "list[1]: must be a text"),
            (json!({"text": "x", "deep": {}}), "deep.flag: is missing"),
            (json!({"text": "x", "deep": {"flag": true, "a": 1}}), "deep.a: there is no such"),
            (json!({"text": "x", "colour": "red"}), "colour: there is no such argument"),
        ] {
            let told = told(wrong);
            assert!(told.starts_with(expected), "{told:?} instead of {expected:?}");
        }
    }

    /// Every word of a schema, with where it stands.
    fn words(schema: &Value, found: &mut Vec<String>) {
        for (word, value) in schema.as_object().into_iter().flatten() {
            found.push(word.clone());
            match word.as_str() {
                "properties" => {
                    value
                        .as_object()
                        .into_iter()
                        .flatten()
                        .for_each(|(_, inner)| words(inner, found));
                }
                "items" => words(value, found),
                _ => {}
            }
        }
    }

    #[test]
    fn the_schemas_of_the_tools_use_no_word_that_is_not_checked() {
        const KNOWN: [&str; 10] = [
            "type",
            "properties",
            "required",
            "additionalProperties",
            "items",
            "enum",
            "minLength",
            "minItems",
            "minimum",
            "description",
        ];
        for tool in super::super::tool::TOOLS {
            let mut found = Vec::new();
            words(&(tool.shown)()["inputSchema"], &mut found);
            found.retain(|word| !KNOWN.contains(&word.as_str()));
            assert!(found.is_empty(), "{}: {found:?}", tool.name);
        }
    }
}
