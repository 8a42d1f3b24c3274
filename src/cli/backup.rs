//! `backup` and `restore`: the database out of its place, and back into it.
//!
//! A backup is one file with everything that the server knows: sessions, turns, items, approvals, the whole log. It is
//! not the agents' own files (their logins and native sessions), not the configuration, not the token. It appears under
//! its name only when it is checked. A restore replaces the database whole, and ends what still worked for the old one.

use super::{Options, Outcome, config, for_each_child, tell};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::folder;
use crate::keeper::{self, leftover};
use crate::ledger::backup::{self, Counts};
use crate::model::id;
use crate::session::TOKENS_FOLDER;
use rustix::fs::{CWD, RenameFlags};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(super) const HELP: &str = "\
gg-runtime-server backup: copy the database into one file, and check the copy

usage: gg-runtime-server backup FILE [--force] [--config FILE] [--data-dir DIR]

  --force  replace FILE if it is there

Works beside a server that runs, which goes on writing: the copy is of one instant. It is
readable for its owner alone. Not in it: the agents' own files, the configuration, the token.
";

pub(super) const RESTORE_HELP: &str = "\
gg-runtime-server restore: put a backup in the place of the database

usage: gg-runtime-server restore FILE [--force] [--config FILE] [--data-dir DIR]

  --force  there is a database: end the agents that it knows and keep it beside the new one,
           as runtime.sqlite3.replaced-<time>

No server may run on the data folder. Turns that were running when the backup was made fail
at the next start; their sessions go on.
";

pub(super) fn run(options: &Options) -> Outcome {
    let config = match config(options) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let (from, to) = (&config.sqlite_path, options.path(0));
    if !from.is_file() {
        return Err(no_database(from));
    }
    if to.exists() && !options.has("force") {
        return Err(Error::new(Code::Conflict, format!("{} is there already", to.display()))
            .hint("choose another name, or replace it with --force"));
    }
    refuse_itself(&to, from)?;
    let place =
        |new: &Path| std::fs::rename(new, &to).map_err(|error| failed(&to, "written", error));
    let make = |new: &Path| {
        backup::copy(from, new).map_err(|error| {
            let message = format!("{} can not be made: {}", to.display(), error.message);
            Error { message, ..error }
        })
    };
    let counts = with_new_file(&to, make, place)?;
    tell(&format!("backup {}: {}; checked", to.display(), told(&counts)));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn restore(options: &Options) -> Outcome {
    let config = match config(options) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let (from, to) = (options.path(0), &config.sqlite_path);
    if !from.is_file() {
        return Err(Error::not_found("file", &from.display().to_string())
            .hint("name the file that `backup` has made"));
    }
    refuse_itself(&from, to)?;
    let counts = backup::check(&from, None).map_err(|error| {
        let message = format!("{} can not be restored: {}", from.display(), error.message);
        Error { message, ..error }
    })?;
    folder::make_folder(&config.root_dir)?;
    if let Some(folder) = to.parent() {
        folder::make_folder(folder)?;
    }
    // Held to the end: no server starts in the middle.
    let _lock = folder::lock_folder(&config.root_dir)?;
    let _lock_of_database = folder::lock_database(to)?;
    if to.exists() && !options.has("force") {
        let message = format!("there is a database {}", to.display());
        return Err(Error::new(Code::Conflict, message)
            .hint("--force puts it aside and ends the agents that it knows"));
    }
    let place = |new: &Path| {
        if to.exists() {
            backup::settle(to)?;
        }
        end_children(&config)?;
        take_place(new, to)
    };
    with_new_file(to, |new| backup::copy(&from, new), place)?;
    tell(&format!("restored {}: {}", to.display(), told(&counts)));
    Ok(ExitCode::SUCCESS)
}

/// Agents of the database that goes away would write into journals that the new one knows nothing of.
fn end_children(config: &Config) -> Result<()> {
    let keepers = config.root_dir.join("keepers");
    for_each_child(&keeper::list(&keepers)?, |child_id| {
        leftover::end(child_id, config.keeper_grace)?;
        let dir = keepers.join(child_id);
        std::fs::remove_dir_all(&dir).map_err(|error| failed(&dir, "removed", error))
    })?;
    // Their tokens open nothing any more; the folder is made again by the next start.
    let tokens = config.root_dir.join(TOKENS_FOLDER);
    match std::fs::remove_dir_all(&tokens) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(&tokens, "removed", error))
        }
        _ => Ok(()),
    }
}

/// Puts the new database in the place of the one that is there, which is kept. The two change places in one step, so
/// that a command that is killed has left one of them there: a server that found none would begin with nothing.
fn take_place(new: &Path, database: &Path) -> Result<()> {
    let aside = PathBuf::from(format!("{}.replaced-{}", database.display(), id::now_ms()));
    let [aside_itself, aside_files @ ..] = folder::database_files(&aside);
    let [_, files @ ..] = folder::database_files(database);
    // A log that could not be moved into the old database must not be taken for one of the new.
    for (old, name) in files.iter().zip(&aside_files).filter(|(old, _)| old.exists()) {
        rename(old, name)?;
    }
    if !database.exists() {
        return rename(new, database);
    }
    let kept = if rustix::fs::renameat_with(CWD, new, CWD, database, RenameFlags::EXCHANGE).is_ok()
    {
        // Whatever its name, it is not to be lost now.
        rename(new, &aside_itself).map_or(new, |()| &aside_itself)
    } else {
        // A file system that can not do it: between these two there is no database.
        rename(database, &aside_itself)?;
        rename(new, database).or_else(|error| rename(&aside_itself, database).and(Err(error)))?;
        &aside_itself
    };
    tell(&format!("the old database is {}", kept.display()));
    Ok(())
}

fn rename(old: &Path, new: &Path) -> Result<()> {
    std::fs::rename(old, new).map_err(|error| failed(old, "renamed", error))
}

/// Errors: the file that is to be the backup is one of the database's own, under whatever name.
fn refuse_itself(file: &Path, database: &Path) -> Result<()> {
    let place = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    let given = place(file);
    let is_own = |own: PathBuf| given.is_some() && place(&own) == given;
    if folder::database_files(database).into_iter().any(is_own) {
        return Err(Error::bad_request(format!("{} is the database itself", file.display()))
            .hint("name another file: a backup is a copy"));
    }
    Ok(())
}

/// Has a file made beside `path`, private, and placed by `place`, which is to give it that name, only when it is good
/// and on the disk. `place` fails only where it has placed nothing.
fn with_new_file<T>(
    path: &Path,
    make: impl FnOnce(&Path) -> Result<T>,
    place: impl FnOnce(&Path) -> Result<()>,
) -> Result<T> {
    let new = PathBuf::from(format!("{}.new-{}", path.display(), std::process::id()));
    let written = |done: io::Result<()>| done.map_err(|error| failed(path, "written", error));
    let made = written(create(&new).map(|_file| ())).and_then(|()| {
        let value = make(&new)?;
        written(File::open(&new).and_then(|file| file.sync_all()))?;
        place(&new)?;
        Ok(value)
    });
    if made.is_err() {
        // It may not even have been made; the error on its way is the one that matters.
        for file in folder::database_files(&new) {
            drop(std::fs::remove_file(file));
        }
        return made;
    }
    written(sync_folder(path)).and(made)
}

fn create(path: &Path) -> io::Result<File> {
    // One of that name is of a command that was killed. What is somebody else's, or made just now, is not written to.
    drop(std::fs::remove_file(path));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// So that the name survives a loss of power, as its contents do.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
}

/// The counts that people ask for.
fn told(counts: &Counts) -> String {
    let of =
        |table: &str| counts.iter().find(|(name, _)| name == table).map_or(0, |(_, count)| *count);
    format!("{} sessions, {} turns, {} events", of("session"), of("turn"), of("event"))
}

fn no_database(path: &Path) -> Error {
    Error::not_found("database", &path.display().to_string())
        .hint("name the data folder with --data-dir or --config")
}

fn failed(path: &Path, done: &str, error: io::Error) -> Error {
    Error::internal(format!("{} can not be {done}: {error}", path.display()))
}
