//! The server program. What it does is in the library: `cli` reads the arguments and runs the command that they name.

use std::process::ExitCode;

fn main() -> ExitCode {
    gooselake::cli::run(std::env::args_os().skip(1))
}
