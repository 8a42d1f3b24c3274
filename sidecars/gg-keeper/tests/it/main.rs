//! The built keeper, with real children, seen from outside: over its socket, in its folder and in
//! `/proc`.

mod input;
mod kept;
mod life;
mod output;
mod tree;
