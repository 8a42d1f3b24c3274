//! A process as somebody asks for it, and whether it can be had.
//!
//! Everything that can be said without starting anything is said here, for whoever asks: what comes out is a record
//! that only the machine can still refuse. Runs on the caller's thread; looks at folders and at PATH, changes nothing.

use super::launch::argv;
use crate::config::Processes as Config;
use crate::environment;
use crate::error::{Code, Error, Result};
use crate::ledger::idempotency::IdempotencyKey;
use crate::ledger::process::NewProcess;
use crate::ledger::to_json;
use crate::limits;
use crate::model::id;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A process that somebody wants: the fields of `POST /v1/processes`.
#[derive(Clone, Debug, Default)]
pub struct ProcessRequest {
    /// For the shell. Either this or `args`.
    pub command: Option<String>,
    /// The program and its arguments, without a shell.
    pub args: Option<Vec<String>>,
    pub cwd: Option<String>,
    pub env: BTreeMap<String, String>,
    pub stdin: Option<String>,
    pub is_stdin_open: bool,
    pub name: Option<String>,
    /// Zero = no limit; None = as configured.
    pub timeout_ms: Option<u64>,
    pub kill_grace_ms: Option<u64>,
    /// Who owns it; None = the operator.
    pub session_id: Option<String>,
    /// Wait for a place instead of failing when there is none.
    pub is_queue: bool,
    pub idempotency: Option<IdempotencyKey>,
}

/// The longest name, in bytes.
const NAME_BYTES: usize = 200;
/// An hour between the first signal and KILL; beyond that a number is a mistake.
pub const GRACE_MS_MAX: u64 = 3_600_000;
/// A century of running; beyond that a number is a mistake.
pub const TIMEOUT_MS_MAX: u64 = 3_153_600_000_000;

impl ProcessRequest {
    /// The record to be made. Errors: the field that can not be as it is.
    pub(super) fn checked(&self, config: &Config) -> Result<NewProcess> {
        environment::check(&self.env)?;
        let command = self.command()?;
        let argv = argv(&command, config.is_shell_allowed)?;
        self.check_size(&argv)?;
        self.check_program(config, &argv[0])?;
        let cwd = self.cwd.as_deref().map(str::trim).filter(|cwd| !cwd.is_empty());
        let stdin = self.stdin.clone().map(String::into_bytes);
        if stdin.as_ref().is_some_and(|stdin| stdin.len() as i64 > limits::PROCESS_STDIN_BYTES) {
            let most = limits::PROCESS_STDIN_BYTES;
            return Err(Error::new(
                Code::PayloadTooLarge,
                format!("stdin has more than {most} bytes"),
            )
            .hint("set stdin_open and send the rest with POST …/stdin"));
        }
        if self.name.as_ref().is_some_and(|name| name.len() > NAME_BYTES) {
            return Err(Error::bad_request(format!("name: it has more than {NAME_BYTES} bytes")));
        }
        let timeout_ms = milliseconds("timeout_ms", self.timeout_ms, TIMEOUT_MS_MAX)?;
        let grace_ms = grace(self.kill_grace_ms)?;
        Ok(NewProcess {
            process_id: id::new("proc"),
            session_id: self.session_id.clone(),
            name: self.name.clone(),
            command: command.to_string(),
            cwd: cwd.map_or_else(environment::server_folder, environment::folder)?,
            env: to_json(&self.env),
            timeout_ms: timeout_ms.map_or(config.timeout_ms, |ms| (ms > 0).then_some(ms)),
            kill_grace_ms: grace_ms.unwrap_or(config.kill_grace_ms),
            output_bytes_max: config.output_bytes_max,
            stdin,
            is_stdin_open: self.is_stdin_open,
        })
    }

    /// The command as the record keeps it.
    fn command(&self) -> Result<Value> {
        let command = match (&self.command, &self.args) {
            (Some(_), Some(_)) => {
                return Err(Error::bad_request("command and args exclude each other")
                    .hint("send command for the shell, or args to do without one"));
            }
            (Some(text), None) => {
                let text = text.trim();
                if text.is_empty() {
                    return Err(Error::bad_request("command: it is empty"));
                }
                check_nul("command", text)?;
                json!({"command": text})
            }
            (None, Some(args)) => {
                if args.first().is_none_or(String::is_empty) {
                    return Err(Error::bad_request("args: the program is missing")
                        .hint("the first element names it"));
                }
                args.iter().try_for_each(|arg| check_nul("args", arg))?;
                json!({"args": args})
            }
            (None, None) => {
                return Err(Error::bad_request("command is missing")
                    .hint("send command (a text for the shell) or args (a list, no shell)"));
            }
        };
        Ok(command)
    }

    fn check_size(&self, argv: &[String]) -> Result<()> {
        let of_argv: usize = argv.iter().map(|arg| arg.len() + 4).sum();
        let bytes = of_argv + environment::bytes(&self.env);
        if bytes > limits::ENV_BYTES {
            let told = "the command and its environment have";
            return Err(Error::new(
                Code::PayloadTooLarge,
                format!("{told} {bytes} bytes, at most {}", limits::ENV_BYTES),
            )
            .hint("put what is long into a file, or send it as stdin"));
        }
        Ok(())
    }

    /// A mistyped program is told at once, not by a record of a process that never was.
    fn check_program(&self, config: &Config, program: &str) -> Result<()> {
        let passed_on = environment::passed_on(&config.env_passthrough);
        let path = self.env.get("PATH").or_else(|| passed_on.get("PATH"));
        if environment::find_program(program, path.map_or("", String::as_str)).is_none() {
            return Err(Error::bad_request(format!("the program {program:?} is not on PATH"))
                .hint("give its whole path, or set PATH in env"));
        }
        Ok(())
    }
}

/// Errors: a text that no program can be given.
fn check_nul(field: &str, text: &str) -> Result<()> {
    match text.contains('\0') {
        true => Err(Error::bad_request(format!("{field}: it has a NUL character"))),
        false => Ok(()),
    }
}

/// A `kill_grace_ms` of a request. Errors: it is too long to be meant.
pub fn grace(kill_grace_ms: Option<u64>) -> Result<Option<i64>> {
    milliseconds("kill_grace_ms", kill_grace_ms, GRACE_MS_MAX)
}

fn milliseconds(field: &str, value: Option<u64>, most: u64) -> Result<Option<i64>> {
    match value {
        Some(value) if value > most => {
            Err(Error::bad_request(format!("{field} is {value}; it can be at most {most}")))
        }
        Some(value) => Ok(i64::try_from(value).ok()),
        None => Ok(None),
    }
}
