//! `gg-mcp-server`: an MCP server on stdio that forwards to the gateway of the runtime server.
//!
//! Owns: the command line, and the main thread, which reads stdin line by line until it ends. It promises exit code 0
//! when the client closes stdin, and 2 for a wrong command line. Which tools there are the gateway alone knows;
//! `gg_ping` works without it. What the environment must hold is in `help.txt`.

mod gateway;
mod serve;
mod settings;
mod thread;

use serve::Server;
use settings::Settings;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

const HELP: &str = include_str!("help.txt");

/// The longest line of a client, in bytes. A longer one is skipped and answered with a parse error; what the gateway
/// takes is smaller still.
const LINE_BYTES_MAX: u64 = 1 << 20;

fn main() -> ExitCode {
    let text = match std::env::args().nth(1).as_deref() {
        None => return serve(),
        Some("--help" | "-h") => HELP.to_owned(),
        Some("--version" | "-V") => format!("gg-mcp-server {}\n", env!("CARGO_PKG_VERSION")),
        Some(argument) => {
            let text = format!("gg-mcp-server: unknown argument {argument}; see --help\n");
            drop(io::stderr().write_all(text.as_bytes()));
            return ExitCode::from(2);
        }
    };
    // A closed stdout has no reader to miss it.
    drop(io::stdout().write_all(text.as_bytes()));
    ExitCode::SUCCESS
}

fn serve() -> ExitCode {
    let server = Arc::new(Server::new(Settings::from_env()));
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        match input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) if line.trim_ascii().is_empty() => {}
            Ok(count) if count as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") => {
                server.refuse_line(LINE_BYTES_MAX);
                if input.skip_until(b'\n').is_err() {
                    break;
                }
            }
            Ok(_) => server.line(&line),
        }
    }
    server.finish();
    ExitCode::SUCCESS
}
