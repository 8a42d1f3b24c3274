//! The data folder: who may look into it, who owns it, and the operator's token in it.
//!
//! Owns: the modes of what is made there (folders 0700, files 0600), the lock that makes one server the owner, and the
//! token file. Used by the server when it starts and by the commands beside it, on their own thread. It deliberately
//! knows nothing of the database but its name.

use crate::error::{Code, Error, Result};
use crate::secret;
use crate::thread;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of the lock in the data folder. It also says who holds it.
pub const LOCK: &str = "lock";

/// The server that holds a data folder, as it has written itself into the lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub pid: Option<u32>,
    /// Where it listens; None until it does.
    pub address: Option<SocketAddr>,
}

/// Makes a folder that nobody else can look into; one that is there stays as it is.
pub fn make_folder(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        Error::internal(format!("the folder {} can not be made: {error}", path.display()))
            .hint("choose another with --data-dir")
    })
}

/// Takes the lock of a data folder: one server for one folder, and nothing in it is read before. It is held until the
/// file is dropped. A server that was killed while it started a program has left its lock with that for a moment, which
/// is waited for. Errors: another server has it (`conflict`), or the folder can not be written.
pub fn lock_folder(root: &Path) -> Result<File> {
    let taken = format!("another server runs on the data folder {}", root.display());
    lock(&root.join(LOCK), taken, "stop it, or choose another folder with --data-dir")
}

/// Takes the lock of a database, of which that of the data folder says nothing: a server with another data folder may
/// be configured for the same one. Held as that one, with the same errors.
pub fn lock_database(database: &Path) -> Result<File> {
    let database = resolve(database);
    let taken = format!("another server runs on the database {}", database.display());
    let path = PathBuf::from(format!("{}.{LOCK}", database.display()));
    lock(&path, taken, "stop it, or name another one as data.sqlite_path")
}

/// Where a database is, or will be when it is made: through links, also one that leads to nothing yet.
fn resolve(database: &Path) -> PathBuf {
    let mut path = database.to_owned();
    // As many as the system follows.
    for _ in 0..40 {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        match path.read_link() {
            Ok(target) => path = folder.join(target),
            Err(_) => {
                let name = path.file_name().unwrap_or_default();
                return folder.canonicalize().map(|folder| folder.join(name)).unwrap_or(path);
            }
        }
    }
    path
}

/// Takes a lock; `taken` and its hint say that another server has it.
fn lock(path: &Path, taken: String, hint: &str) -> Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| {
            Error::internal(format!("{} can not be opened: {error}", path.display()))
                .hint("make its folder, writable for the user that runs the server")
        })?;
    let failed = |error: Errno| {
        Error::internal(format!("{} can not be locked: {error}", path.display()))
            .hint("the file system must know locks (flock)")
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(file),
        Err(Errno::WOULDBLOCK) => {}
        Err(error) => return Err(failed(error)),
    }
    // Until the program has begun, its process holds all that the server held. It lets go in a moment, another server
    // does not.
    let (locked, lock) = crossbeam_channel::bounded(1);
    let waiter = thread::spawn("lock-wait", move || {
        let taken = rustix::fs::flock(&file, FlockOperation::LockExclusive);
        drop(locked.send(taken.map(|()| file)));
    })
    .map_err(|error| Error::internal("no thread can be started").source(error))?;
    if let Ok(locked) = lock.recv_timeout(LOCK_WAIT) {
        return locked.map_err(failed);
    }
    // It waits as long as the other server runs; this process ends without it.
    std::mem::forget(waiter);
    Err(Error::new(Code::Conflict, taken).hint(hint))
}

/// How long the lock of a server that was just killed may outlive it.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Writes into the lock who holds it, for the commands that look from outside.
pub fn sign_lock(mut lock: &File, address: Option<SocketAddr>) -> std::io::Result<()> {
    let mut text = format!("pid {}\n", std::process::id());
    if let Some(address) = address {
        text.push_str(&format!("address {address}\n"));
    }
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(text.as_bytes())
}

/// The server that holds the folder now; None when none does. Takes the lock for an instant to find out, so a server
/// that starts in that instant may be refused it. Errors: the lock can not be read.
pub fn owner(root: &Path) -> Result<Option<Owner>> {
    let path = root.join(LOCK);
    let failed = |error: std::io::Error| {
        Error::internal(format!("{} can not be read: {error}", path.display()))
            .hint("run this as the user that runs the server")
    };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => return Ok(None),
        Err(Errno::WOULDBLOCK) => {}
        Err(error) => return Err(failed(error.into())),
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    let owner = parse_owner(&text);
    // A lock may outlive its server by a moment.
    let is_gone = owner.pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
    Ok(Some(owner).filter(|_| !is_gone))
}

fn parse_owner(text: &str) -> Owner {
    let value = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ').map(str::to_owned))
    };
    Owner {
        pid: value("pid").and_then(|pid| pid.parse().ok()),
        address: value("address").and_then(|address| address.parse().ok()),
    }
}

/// Takes a database and the files beside it from everybody but its owner: it holds prompts and environments. One that
/// is not there is made, empty: SQLite gives the files beside it the mode that it has. Through a link it is the target
/// that is meant: SQLite has its files there.
pub fn restrict(database: &Path) -> Result<()> {
    let database = &resolve(database);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(database) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            let message = format!("the database {} can not be made: {error}", database.display());
            return Err(Error::internal(message)
                .hint("make its folder, writable for the user that runs the server"));
        }
        _ => {}
    }
    for file in database_files(database) {
        if file.exists() {
            std::fs::set_permissions(&file, Permissions::from_mode(0o600)).map_err(|error| {
                Error::internal(format!("{} can not be made private", file.display())).source(error)
            })?;
        }
    }
    Ok(())
}

/// The files that make up a database: itself, its log and the index of that.
pub fn database_files(database: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| PathBuf::from(format!("{}{suffix}", database.display())))
}

/// The token in the file; None when there is no file or nothing in it. Errors: it can not be read.
pub fn read_token(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(token_failed(path, &error)),
    }
}

/// Makes a token and puts it into the file, whole or not at all; one that was there is replaced.
pub fn make_token(path: &Path) -> Result<String> {
    let told = |error: std::io::Error| token_failed(path, &error);
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let token = secret::random()?;
    let fresh = PathBuf::from(format!("{}.new", path.display()));
    secret::write(&fresh, &token).map_err(told)?;
    std::fs::rename(&fresh, path).map_err(told)?;
    if let Some(folder) = path.parent() {
        // A loss of power must not give the clients another token.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(told)?;
    }
    Ok(token)
}

fn token_failed(path: &Path, error: &std::io::Error) -> Error {
    Error::internal(format!("the token file {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own for one test.
    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("gg-folder-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        make_folder(&path).unwrap();
        path
    }

    #[test]
    fn the_owner_of_a_folder_is_who_holds_its_lock() {
        let root = folder("owner");
        assert_eq!(owner(&root).unwrap(), None);
        let lock = lock_folder(&root).unwrap();
        let address = "127.0.0.1:4711".parse().unwrap();
        sign_lock(&lock, Some(address)).unwrap();
        let pid = Some(std::process::id());
        assert_eq!(owner(&root).unwrap(), Some(Owner { pid, address: Some(address) }));
        assert_eq!(lock_folder(&root).unwrap_err().code, Code::Conflict);
        drop(lock);
        // It is free again; a program that another test starts may hold it until its exec, which is waited for.
        drop(lock_folder(&root).unwrap());
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_database_is_private_before_anything_is_in_it() {
        let root = folder("private");
        let (database, log) = (root.join("db"), root.join("db-wal"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        restrict(&database).unwrap();
        assert_eq!(mode(&database), 0o600);
        for file in [&database, &log] {
            std::fs::write(file, "what is there stays").unwrap();
            std::fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        }
        restrict(&database).unwrap();
        assert_eq!((mode(&database), mode(&log)), (0o600, 0o600));
        assert_eq!(std::fs::read_to_string(&database).unwrap(), "what is there stays");
        let told = restrict(&root.join("no/db")).unwrap_err();
        assert!(told.message.contains("no/db"), "{}", told.message);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_database_behind_a_link_is_private_where_it_is() {
        let root = folder("linked");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        std::fs::create_dir(root.join("far")).unwrap();
        // One link leads to the next, and that to nothing.
        std::os::unix::fs::symlink("far/link", root.join("db")).unwrap();
        std::os::unix::fs::symlink("there", root.join("far/link")).unwrap();
        restrict(&root.join("db")).unwrap();
        assert_eq!(mode(&root.join("far/there")), 0o600);
        let log = root.join("far/there-wal");
        std::fs::write(&log, "").unwrap();
        std::fs::set_permissions(&log, Permissions::from_mode(0o644)).unwrap();
        restrict(&root.join("db")).unwrap();
        assert_eq!(mode(&log), 0o600);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_database_has_a_lock_of_its_own() {
        let (one, two) = (folder("one"), folder("two"));
        let database = two.join("runtime.sqlite3");
        let lock = lock_database(&database).unwrap();
        // By another name it is the same.
        let link = one.join("linked");
        std::os::unix::fs::symlink(&database, &link).unwrap();
        assert_eq!(lock_database(&link).unwrap_err().code, Code::Conflict);
        drop(lock);
        lock_database(&link).unwrap();
        [one, two].iter().for_each(|root| std::fs::remove_dir_all(root).unwrap());
    }

    #[test]
    fn a_token_is_made_once_private_and_can_be_replaced() {
        let root = folder("token");
        let path = root.join("auth/api-token");
        assert_eq!(read_token(&path).unwrap(), None);
        let token = make_token(&path).unwrap();
        assert_eq!(read_token(&path).unwrap(), Some(token.clone()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(make_token(&path).unwrap(), token);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
