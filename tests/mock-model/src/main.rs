//! The mock model.
fn main() {}
