//! Black-box tests of the built programs, and the rules of this repository.

#![allow(clippy::unwrap_used, reason = "a test that meets what it does not await fails")]

mod kill;
mod tidy;
