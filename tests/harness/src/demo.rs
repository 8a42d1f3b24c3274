//! What the demo agent says for its directives, word for word.
//!
//! Pure functions, for whoever compares what a turn has said with all that it had to say.

/// Of a command that went well.
pub const OUTCOME: &str = "The command ended with exit code 0.";

/// For `flood count bytes`.
pub fn flood_text(count: u64, bytes: usize) -> String {
    let chunk = |number| format!("{:.<bytes$}", format!("{number} "));
    (1..=count).map(chunk).collect()
}

/// For `slow count …`.
pub fn slow_text(count: u64) -> String {
    (1..=count).map(|number| format!("{number} ")).collect()
}
