//! The rules of MCP, for any message: no panic, and an answer is JSON-RPC with the id of its request or null.

use gg_mcp_server::rpc::{self, Ask, Headers, Identity, Read};
use serde_json::{Value, json};

const IDENTITY: Identity =
    Identity { name: "fuzz", version: "1", instructions: "", is_list_changing: false };

/// What an error quotes of a message, and what surrounds it.
const FREE_BYTES: usize = 4096;

pub(crate) fn check(input: &[u8]) {
    let headers = Headers { version: Some("2026-07-28"), method: Some("tools/list"), name: None };
    for headers in [None, Some(&headers)] {
        match rpc::read(input, &IDENTITY, headers) {
            Read::Answer { status, body } => {
                assert!((200..500).contains(&status), "status {status}");
                check_answer(input, &body);
            }
            Read::Request(request) => {
                if let Ask::CallTool { name, .. } = &request.ask {
                    assert!(!name.is_empty());
                }
                check_answer(input, &request.listed(&[json!({"name": "one"})]));
                check_answer(input, &request.called("done".to_owned(), false));
                check_answer(input, &request.refused(rpc::BUSY, "later"));
            }
            Read::Nothing => {}
        }
    }
}

fn check_answer(input: &[u8], answer: &Value) {
    assert_eq!(answer["jsonrpc"], "2.0");
    assert!(answer["result"].is_object() != answer["error"].is_object(), "{answer}");
    let asked = serde_json::from_slice::<Value>(input).unwrap_or_default();
    assert!(answer["id"].is_null() || answer["id"] == asked["id"], "{answer}");
    // A byte of a text can become six when it is quoted, and is quoted twice in one message.
    let most = FREE_BYTES + 14 * input.len();
    assert!(answer.to_string().len() <= most, "{} bytes of {}", answer.to_string().len(), most);
}
