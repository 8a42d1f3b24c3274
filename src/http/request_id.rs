//! What a request is called: in its answer, in the log, and in the log of whoever sent it.
//!
//! Owns: the rule which names of clients are taken, and the making of others. Pure, called on
//! connection threads and on the accept thread. A name that is not taken is replaced and not
//! refused: a proxy in front of us may have its own idea of one, and the request is none the worse.

use super::Head;
use crate::model::id;

/// The longest name that is taken from a client.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The name that the client gave, if it can stand in a header and in a line of the log.
pub(super) fn given(head: &Head) -> Option<&str> {
    head.header("x-request-id").filter(|name| is_good(name))
}

/// A name of ours.
pub(super) fn make() -> String {
    id::new("req")
}

fn is_good(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    (1..=REQUEST_ID_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_not_long() {
        let longest = "x".repeat(REQUEST_ID_BYTES_MAX);
        for name in ["1", "a-b_c.d:e/f+g=h@i", "0198f3c2-7dc1-7171", &longest] {
            assert!(is_good(name), "{name}");
        }
        let too_long = "x".repeat(REQUEST_ID_BYTES_MAX + 1);
        for name in ["", "a b", "a\tb", "a\"b", "ä", "a,b", "a;b", &too_long] {
            assert!(!is_good(name), "{name}");
        }
    }
}
