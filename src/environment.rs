//! What a child process may see of the server's own environment, and whether what a client gives it can be given.
//!
//! Owns: the short list of variables that every program needs. An environment for a child is made anew from it, so no
//! key of one vendor reaches another's agent, and a command sees nothing that nobody gave it. Runs on any thread;
//! deliberately knows no provider.

use crate::error::{Code, Error, Result};
use crate::limits;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Variables that every child may have, by name or (with a star) by prefix.
const PASSED_ON: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "PATH",
    "LANG",
    "LC_*",
    "TERM",
    "TMPDIR",
    "TZ",
    "SSL_CERT_*",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "XDG_*",
];

/// The environment that a child starts from: the list above, and what `also` names (with a star, by prefix). What of it
/// is not UTF-8 is left out, and told in the log.
pub fn passed_on(also: &[String]) -> BTreeMap<String, String> {
    let is_passed = |name: &str| {
        let fits = |rule: &str| match rule.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == rule,
        };
        PASSED_ON.iter().any(|rule| fits(rule)) || also.iter().any(|rule| fits(rule))
    };
    let as_text = |(name, value): (OsString, OsString)| {
        let shown = name.to_string_lossy().into_owned();
        if !is_passed(&shown) {
            return None;
        }
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => Some((name, value)),
            _ => {
                tell_no_text(shown);
                None
            }
        }
    };
    std::env::vars_os().filter_map(as_text).collect()
}

/// Says once that a variable is not passed on. What a child is given is kept and compared as text.
fn tell_no_text(name: String) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let is_new = TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
    if is_new {
        log::warn!("the variable {name} is not UTF-8; no child is given it");
    }
}

/// The file that a command names: a path as it is, a bare name by `path` (the value of PATH). None: it is on no folder
/// of it.
pub fn find_program(command: &str, path: &str) -> Option<PathBuf> {
    if command.contains('/') {
        return Some(PathBuf::from(command));
    }
    path.split(':')
        .filter(|folder| !folder.is_empty())
        .map(|folder| Path::new(folder).join(command))
        .find(|candidate| candidate.is_file())
}

/// The folder that the server itself works in.
pub fn server_folder() -> Result<String> {
    std::env::current_dir()
        .map(|folder| folder.to_string_lossy().into_owned())
        .map_err(|error| Error::internal("the server's own folder is gone").source(error))
}

/// An existing folder, as an absolute path.
pub fn folder(cwd: &str) -> Result<String> {
    let path = std::path::absolute(Path::new(cwd.trim()))
        .map_err(|_| Error::bad_request(format!("cwd: {cwd:?} is not a path")))?;
    if !path.is_dir() {
        return Err(Error::bad_request(format!(
            "cwd: {} is not an existing folder",
            path.display()
        ))
        .hint("create it first, or name another"));
    }
    path.into_os_string()
        .into_string()
        .map_err(|_| Error::bad_request("cwd: the path is not UTF-8"))
}

/// What an environment takes of the space that a new program has for it and for its arguments.
pub fn bytes(env: &BTreeMap<String, String>) -> usize {
    env.iter().map(|(name, value)| name.len() + value.len() + 8).sum()
}

/// Errors: a variable of a client that no process can have, or more of them than a program can be given.
pub fn check(env: &BTreeMap<String, String>) -> Result<()> {
    let (bytes, most) = (bytes(env), limits::ENV_BYTES);
    if bytes > most {
        let text = format!("env: it has {bytes} bytes, at most {most}");
        return Err(Error::new(Code::PayloadTooLarge, text).hint("put what is long into a file"));
    }
    for (name, value) in env {
        let is_name = !name.is_empty() && !name.contains(['=', '\0']);
        if !is_name || value.contains('\0') {
            return Err(Error::bad_request(format!("env: {name:?} can not be a variable")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_on_the_path_and_a_path_is_taken_as_it_is() {
        assert_eq!(find_program("./x", ""), Some(PathBuf::from("./x")));
        let found = find_program("sh", "/nowhere::/bin");
        assert_eq!(found, Some(PathBuf::from("/bin/sh")));
        assert_eq!(find_program("sh", "/nowhere"), None);
    }

    #[test]
    fn a_child_sees_what_it_needs_and_what_is_named() {
        let passed = passed_on(&["CARGO_PKG_*".to_owned()]);
        assert!(passed.contains_key("PATH"));
        assert!(passed.contains_key("CARGO_PKG_NAME"));
        assert!(!passed.contains_key("CARGO_MANIFEST_DIR"));
    }
}
