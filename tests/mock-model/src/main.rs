//! The program `mock-model`: serves until it is killed.
//!
//! Owns: its two arguments. Promises: the port is listened on before it is printed or written.
//! Exit codes: 1 failed, 2 wrong use. Deliberately has no configuration: directives say it all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gooselake_mock_model::Mock;

const USAGE: &str = "usage: mock-model [--port PORT] [--port-file FILE]
  --port PORT       listen on this port of 127.0.0.1 (0, the default: a free one)
  --port-file FILE  write the port to this file";

struct Arguments {
    port: u16,
    port_file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        drop(writeln!(io::stderr(), "{USAGE}"));
        return ExitCode::from(2);
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "mock-model: {error}"));
            ExitCode::from(1)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments { port: 0, port_file: None };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--port" => arguments.port = words.next()?.parse().ok()?,
            "--port-file" => arguments.port_file = Some(words.next()?.into()),
            _ => return None,
        }
    }
    Some(arguments)
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let mock = Mock::start_on(arguments.port)?;
    if let Some(file) = &arguments.port_file {
        write_port(file, mock.address.port())?;
    }
    writeln!(io::stdout(), "mock model on http://{}", mock.address)?;
    mock.serve();
    Ok(())
}

/// Writes beside the file and renames, so that whoever waits for the file reads a whole number.
fn write_port(file: &Path, port: u16) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    std::fs::write(&name, port.to_string())?;
    std::fs::rename(&name, file)
}
