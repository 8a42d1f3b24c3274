//! Git's own small files, read and copied without git.
//!
//! Runs on the caller's thread. They lie where an agent can put anything in their place: whatever is there, nobody
//! waits for it, and no more of it is read than git would ever write. It deliberately does not know what they mean.

use rustix::fs::OFlags;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Of a file of git's that is read whole; a reflog of so many bytes has more entries than are looked at.
const TEXT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Copies an index with its time. Git tells a file that was changed in the second of the index's own writing, and kept
/// its size, by looking into it, and which files those are by the time of the index.
pub(super) fn copy_index(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::metadata(from)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let written = metadata.modified()?;
    fs::copy(from, to)?;
    fs::File::options().append(true).open(to)?.set_modified(written)
}

/// The text of a file of git's; of one that is longer than git's own ever are, its end. An agent can put anything in
/// the file's place, and a pipe or a device would be read for ever. Errors: also what is no file.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = fs::File::options().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(TEXT_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
