//! The built keeper, with real children, seen from outside: over its socket, in its folder and in
//! `/proc`.

#![allow(clippy::unwrap_used, reason = "this whole package is tests; a failure is a panic")]

mod input;
mod kept;
mod life;
mod output;
mod tree;
