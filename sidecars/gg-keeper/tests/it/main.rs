//! The built keeper, with real children, seen from outside: over its socket, in its folder and in
//! `/proc`.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "all of it is tests")]

mod input;
mod kept;
mod life;
mod output;
mod tree;
