//! What a session leaves on disk, so that another process can go on with it.
//!
//! Owns: the state folder and one file per session, one JSON object a line, appended as the session goes. An object has
//! one key: `open` (the first line), `update` (a `session/update` to send again on load), `mode`, `config`, `title`,
//! `used` (tokens). A line that was torn by a crash is skipped, and the next append starts on a line of its own. No
//! sync to disk: this is a demo, not a ledger. Without a state folder nothing is kept and nothing can be loaded.

use crate::clock;
use crate::thread::lock;
use crate::wire;
use serde_json::{Value, json};
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The longest list that `session/list` gives; the newest sessions come first.
const LIST_MAX: usize = 1000;

/// The longest id of a session that we look for on disk, in bytes.
const ID_BYTES_MAX: usize = 64;

/// The state folder.
pub(crate) struct Store {
    folder: Option<PathBuf>,
}

/// The file of one session, open for appending.
pub(crate) struct History {
    file: Option<Mutex<File>>,
}

/// One session of the folder, for `session/list`.
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) cwd: String,
    pub(crate) title: Option<String>,
    pub(crate) updated_ms: u64,
}

impl Store {
    /// The folder that the environment names. It is made when the first session is.
    pub(crate) fn from_environment() -> Store {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("GG_DEMO_STATE_DIR")
            .or_else(|| set("XDG_STATE_HOME").map(|base| base.join("gg-demo-agent")))
            .or_else(|| set("HOME").map(|home| home.join(".local/state/gg-demo-agent")));
        Store { folder }
    }

    /// Starts the file of a new session. Errors: the folder or the file cannot be made.
    pub(crate) fn create(&self, id: &str, cwd: &str) -> io::Result<History> {
        let Some(folder) = &self.folder else { return Ok(History { file: None }) };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut options = OpenOptions::new();
        options.append(true).create_new(true).mode(0o600);
        let file = options.open(path(folder, id))?;
        let history = History { file: Some(Mutex::new(file)) };
        history.append(&json!({"open": {"cwd": cwd, "created_ms": clock::now_ms()}}))?;
        Ok(history)
    }

    /// Opens the file of a session that was left, with all that it says; `None` when there is no such session.
    pub(crate) fn open(&self, id: &str) -> io::Result<Option<(History, Vec<Value>)>> {
        let Some(folder) = self.folder.as_ref().filter(|_| is_id(id)) else { return Ok(None) };
        let mut options = OpenOptions::new();
        let mut file = match options.read(true).append(true).open(path(folder, id)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let records = records(&file)?;
        end_torn_line(&mut file)?;
        Ok(Some((History { file: Some(Mutex::new(file)) }, records)))
    }

    /// The sessions of the folder, newest first. A file that cannot be read is left out.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let Some(folder) = &self.folder else { return Vec::new() };
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        let mut files: Vec<(u64, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let changed = entry.metadata().and_then(|data| data.modified()).ok()?;
                Some((clock::epoch_ms(changed), entry.path()))
            })
            .collect();
        files.sort_by(|a, b| b.cmp(a));
        files.into_iter().filter_map(|(ms, path)| listed(ms, &path)).take(LIST_MAX).collect()
    }
}

impl History {
    /// Appends one record.
    pub(crate) fn append(&self, record: &Value) -> io::Result<()> {
        match &self.file {
            Some(file) => lock(file).write_all(&wire::line(record)),
            None => Ok(()),
        }
    }
}

fn path(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}.jsonl"))
}

/// An id becomes a file name, so only what [`crate::agent`] makes is one.
fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(plain)
}

fn records(file: &File) -> io::Result<Vec<Value>> {
    let mut records = Vec::new();
    let mut input = BufReader::new(file);
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        if let Ok(record) = serde_json::from_slice(&line) {
            records.push(record);
        }
        line.clear();
    }
    Ok(records)
}

fn end_torn_line(file: &mut File) -> io::Result<()> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(());
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

fn listed(updated_ms: u64, path: &Path) -> Option<Listed> {
    let id = path.file_name()?.to_str()?.strip_suffix(".jsonl")?.to_owned();
    let records = records(&File::open(path).ok()?).ok()?;
    let cwd = records.first()?["open"]["cwd"].as_str()?.to_owned();
    let titles = records.iter().rev().filter_map(|record| record["title"].as_str());
    let title = titles.map(str::to_owned).next();
    Some(Listed { id, cwd, title, updated_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_word_names_a_session() {
        assert!(is_id("demo_18c3f2a1b2c_1"));
        for id in ["", "..", "../x", "a/b", "a.b", "A", &"a".repeat(65)] {
            assert!(!is_id(id), "{id}");
        }
    }
}
