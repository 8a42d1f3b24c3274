//! Black-box tests of the built programs, and the rules of this repository.

mod tidy;
