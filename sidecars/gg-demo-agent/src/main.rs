//! The demo agent.
fn main() {}
