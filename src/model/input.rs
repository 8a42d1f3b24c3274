//! What a turn is made of, once it is checked: text, images whose bytes we hold, links.

use serde::{Deserialize, Serialize};

/// One checked input item. Stored with the turn exactly so; images are stored with their bytes, since the file that the
/// client named may be gone when a queued turn starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Input {
    Text {
        text: String,
    },
    Image {
        /// Base64, standard alphabet with padding.
        data: String,
        /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`: told by the bytes, not by the client.
        media_type: String,
    },
    ResourceLink {
        uri: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
}

/// The texts of the input, joined by a blank line.
pub fn joined_text(input: &[Input]) -> String {
    let texts: Vec<&str> = input
        .iter()
        .filter_map(|item| match item {
            Input::Text { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    texts.join("\n\n")
}
