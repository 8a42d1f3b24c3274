//! What may go into a turn: the items of a client or of a letter, checked, with the bytes of their images.
//!
//! Runs on the caller's thread and reads the files that are named. What it lets through holds everything that the turn
//! needs: a file may be gone when the turn starts.

use crate::error::{Code, Error, Result};
use crate::limits;
use crate::model::input::Input;
use crate::provider::Capabilities;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::io::Read;

/// The checked items. Errors name the item, as `input[0]`.
pub fn checked(items: &[Value], image_bytes_max: usize) -> Result<Vec<Input>> {
    check_count("input", items.len())?;
    let mut images = Images::new(image_bytes_max);
    let check = |(place, item)| checked_item(&format!("input[{place}]"), item, &mut images);
    items.iter().enumerate().map(check).collect()
}

/// What an item may have: what we read, and what blocks of ACP and of MCP carry besides, which agents are not told.
const TEXT_FIELDS: &[&str] = &["text"];
const IMAGE_FIELDS: &[&str] = &["data", "path", "media_type", "mediaType", "mimeType", "uri"];
const LINK_FIELDS: &[&str] = &["uri", "name", "title", "description", "mimeType", "size"];
const ANY_FIELDS: &[&str] = &["type", "annotations", "_meta"];

/// The first field of an item that is not known, as `input[0].pathh`. An item of no known type has none.
pub fn unknown_field(items: &[Value]) -> Option<String> {
    items.iter().enumerate().find_map(|(place, item)| {
        let fields = item.as_object()?;
        let known = match fields.get("type").and_then(Value::as_str) {
            None | Some("text") => TEXT_FIELDS,
            Some("image") => IMAGE_FIELDS,
            Some("resource_link") => LINK_FIELDS,
            Some(_) => return None,
        };
        let is_known = |name: &str| known.contains(&name) || ANY_FIELDS.contains(&name);
        let unknown = fields.keys().find(|name| !is_known(name))?;
        Some(format!("input[{place}].{unknown}"))
    })
}

/// The images in these files. Errors name the path, as `image_paths[0]`.
pub fn images(paths: &[String], image_bytes_max: usize) -> Result<Vec<Input>> {
    check_count("image_paths", paths.len())?;
    let mut images = Images::new(image_bytes_max);
    let check = |(place, path): (usize, &String)| {
        let name = format!("image_paths[{place}]");
        let fields = Map::from_iter([("path".to_owned(), Value::from(path.trim()))]);
        image(&name, &fields, &mut images)
    };
    paths.iter().enumerate().map(check).collect()
}

fn check_count(field: &str, count: usize) -> Result<()> {
    let most = limits::INPUT_ITEMS;
    if count > most {
        return Err(Error::bad_request(format!("{field}: it has {count} items, at most {most}")));
    }
    Ok(())
}

/// What the images of one input may still take: a short text can name a large file many times.
struct Images {
    /// Of one image.
    bytes_max: usize,
    bytes_left: usize,
}

impl Images {
    fn new(bytes_max: usize) -> Images {
        Images { bytes_max, bytes_left: bytes_max.saturating_mul(limits::INPUT_IMAGES) }
    }

    /// Errors: this image is too large, or all of them together are.
    fn take(&mut self, name: &str, bytes: usize) -> Result<()> {
        let (told, most) = match (bytes > self.bytes_max, bytes > self.bytes_left) {
            (true, _) => (format!("the image has {bytes} bytes, the limit is"), self.bytes_max),
            (_, true) => {
                let most = self.bytes_max.saturating_mul(limits::INPUT_IMAGES);
                ("with it the images of this input have more bytes than".to_owned(), most)
            }
            _ => {
                self.bytes_left -= bytes;
                return Ok(());
            }
        };
        Err(Error::new(Code::PayloadTooLarge, format!("{name}: {told} {most}"))
            .hint("make it smaller, or raise limits.max_image_bytes"))
    }
}

fn checked_item(name: &str, item: &Value, images: &mut Images) -> Result<Input> {
    let wrong = |what: String| Error::bad_request(format!("{name}: {what}"));
    if let Some(text) = item.as_str() {
        return Ok(Input::Text { text: text.to_owned() });
    }
    let fields = item.as_object().ok_or_else(|| wrong("must be a text or an object".into()))?;
    check_texts(name, fields)?;
    let text_of = |name: &str| fields.get(name).and_then(Value::as_str);
    match (text_of("type"), text_of("text")) {
        (None | Some("text"), Some(text)) => Ok(Input::Text { text: text.to_owned() }),
        (None | Some("text"), None) => Err(wrong("text is missing".into())),
        (Some("image"), _) => image(name, fields, images),
        (Some("resource_link"), _) => {
            let uri = text_of("uri").ok_or_else(|| wrong("uri is missing".into()))?;
            let name = text_of("name").map(str::to_owned);
            Ok(Input::ResourceLink { uri: uri.to_owned(), name })
        }
        (Some(other), _) => Err(wrong(format!(
            "type is {other:?}; it can be \"text\", \"image\" or \"resource_link\""
        ))),
    }
}

/// Errors: a field that we read is no text. It would be taken for one that is not there.
fn check_texts(item: &str, fields: &Map<String, Value>) -> Result<()> {
    for name in ["type", "text", "data", "path", "media_type", "uri", "name"] {
        if fields.get(name).is_some_and(|value| !value.is_string() && !value.is_null()) {
            return Err(Error::bad_request(format!("{item}.{name}: must be a text")));
        }
    }
    Ok(())
}

fn image(name: &str, fields: &Map<String, Value>, images: &mut Images) -> Result<Input> {
    let wrong = |what: String| Error::bad_request(format!("{name}: {what}"));
    let text_of = |name: &str| fields.get(name).and_then(Value::as_str);
    let bytes = match (text_of("data"), text_of("path")) {
        (Some(_), Some(_)) => {
            return Err(Error::bad_request(format!("{name}.path: there is data too"))
                .hint("leave out path, or leave out data"));
        }
        (Some(data), None) => STANDARD
            .decode(data.trim())
            .map_err(|error| wrong(format!("data is not base64: {error}")))?,
        (None, Some(path)) => read_image(path, images.bytes_max).map_err(wrong)?,
        (None, None) => {
            return Err(wrong("an image needs data (base64) and media_type, or path".into()));
        }
    };
    images.take(name, bytes.len())?;
    let media_type = image_type(&bytes)
        .ok_or_else(|| wrong("the bytes are no PNG, JPEG, GIF or WebP image".into()))?;
    Ok(Input::Image { data: STANDARD.encode(bytes), media_type: media_type.to_owned() })
}

fn read_image(path: &str, most: usize) -> std::result::Result<Vec<u8>, String> {
    if !path.starts_with('/') {
        return Err(format!("path {path:?} must be absolute"));
    }
    let told = |error: std::io::Error| format!("path {path:?}: {error}");
    // The kind is looked at before it is opened: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(told)?.is_file() {
        return Err(format!("path {path:?} is not a file"));
    }
    let file = std::fs::File::open(path).map_err(told)?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(told)?;
    Ok(bytes)
}

/// The type that the first bytes tell.
fn image_type(bytes: &[u8]) -> Option<&'static str> {
    let is_webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        _ if is_webp => Some("image/webp"),
        _ => None,
    }
}

/// Refuses what the agent has said it can not take.
pub fn check_supported(input: &[Input], capabilities: Option<&str>) -> Result<()> {
    let Some(capabilities) = capabilities else { return Ok(()) };
    let known: Capabilities = serde_json::from_str(capabilities).unwrap_or_default();
    for (place, item) in input.iter().enumerate() {
        let (what, is_taken) = match item {
            Input::Text { .. } => continue,
            Input::Image { .. } => ("images", known.image),
            Input::ResourceLink { .. } => ("resource links", known.resource_link),
        };
        if !is_taken {
            return Err(Error::new(
                Code::UnsupportedInput,
                format!("input[{place}]: this agent does not take {what}"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_input_has_a_size_whatever_it_names() {
        let file = std::env::temp_dir().join(crate::model::id::new("image"));
        std::fs::write(&file, b"\x89PNG12").unwrap();
        let path = file.to_string_lossy().into_owned();
        let named = |count: usize| images(&vec![path.clone(); count], 6);
        assert_eq!(named(limits::INPUT_IMAGES).unwrap().len(), limits::INPUT_IMAGES);
        for (error, code, part) in [
            (named(limits::INPUT_IMAGES + 1).unwrap_err(), Code::PayloadTooLarge, "image_paths[4]"),
            (named(limits::INPUT_ITEMS + 1).unwrap_err(), Code::BadRequest, "image_paths"),
            (images(&[path], 5).unwrap_err(), Code::PayloadTooLarge, "image_paths[0]"),
        ] {
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.starts_with(part), "{error}");
        }
        std::fs::remove_file(file).unwrap();
        let texts = |count: usize| checked(&vec![Value::from("x"); count], 6);
        assert_eq!(texts(limits::INPUT_ITEMS).unwrap().len(), limits::INPUT_ITEMS);
        assert!(texts(limits::INPUT_ITEMS + 1).unwrap_err().message.starts_with("input: "));
    }

    #[test]
    fn an_item_has_the_fields_of_its_type_and_what_blocks_of_acp_carry() {
        let unknown = |item: Value| unknown_field(&["x".into(), item]);
        for item in [
            json!("x"),
            json!({"text": "x", "annotations": {"audience": ["user"]}, "_meta": {}}),
            json!({"type": "image", "data": "", "mimeType": "image/png", "uri": "file:///a"}),
            json!({"type": "image", "data": "", "mediaType": "image/png"}),
            json!({"type": "resource_link", "uri": "file:///a", "title": "A", "size": 7}),
            json!({"type": "sound", "loud": true}),
        ] {
            assert_eq!(unknown(item), None);
        }
        for (item, field) in [
            (json!({"type": "image", "pathh": "/a"}), "input[1].pathh"),
            (json!({"text": "x", "path": "/a"}), "input[1].path"),
            (json!({"type": "resource_link", "uri": "a", "text": "x"}), "input[1].text"),
        ] {
            assert_eq!(unknown(item).as_deref(), Some(field));
        }
    }

    #[test]
    fn images_are_known_by_their_bytes() {
        assert_eq!(image_type(b"\x89PNG\r\n"), Some("image/png"));
        assert_eq!(image_type(b"RIFF....WEBPVP8 "), Some("image/webp"));
        assert_eq!(image_type(b"<svg>"), None);
        assert_eq!(image_type(b""), None);
    }
}
