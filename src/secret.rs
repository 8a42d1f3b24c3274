//! Secrets: made, compared, hashed.
//!
//! Owns: the system's random bits, and the rules for tokens, those of the operator and those of agents. A token is 256
//! random bits written in hex; what is compared is compared in a time that tells nothing; of an agent's token only a
//! hash is kept. A plain SHA-256 is enough for that: nobody can guess 256 bits, so nothing has to be slow. Runs on any
//! thread.

use crate::error::{Error, Result};
use rustix::rand::{GetRandomFlags, getrandom};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What is kept of a secret.
pub type Hash = [u8; 32];

/// Fills at most 256 bytes by the system call, which needs no file: a folder of its own may have no `/dev`. Waits on a
/// machine that starts just now. Errors: the system does not know the call, or forbids it; that does not change, so the
/// server asks at its start.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(Error::internal(format!("the system gives no random bits: {error}"))
                    .hint("allow the system call getrandom"));
            }
        }
    }
    Ok(())
}

/// 256 random bits as 64 hex digits. Errors: as with [`fill`].
pub fn random() -> Result<String> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes a secret, or what leads to one, as the only line of a file that its owner alone can read. It is on the disk
/// when this returns: an empty file after a loss of power would be another secret. What has this name goes first, since
/// it may be a link to elsewhere, or a file that others can read.
pub fn write(path: &Path, line: &str) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{line}")?;
    file.sync_all()
}

pub fn hash(secret: &str) -> Hash {
    hmac_sha256::Hash::hash(secret.as_bytes())
}

/// Compares in a time that depends on the lengths alone.
pub fn is_same(given: &[u8], secret: &[u8]) -> bool {
    let mut difference = u8::from(given.len() != secret.len());
    for (place, byte) in secret.iter().enumerate() {
        difference |= byte ^ given.get(place).copied().unwrap_or(0);
    }
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_compare_by_content() {
        assert!(is_same(b"abc", b"abc"));
        for wrong in [&b""[..], b"ab", b"abcd", b"abd"] {
            assert!(!is_same(wrong, b"abc"));
        }
    }

    #[test]
    fn two_secrets_are_long_and_different() {
        let (one, other) = (random().unwrap(), random().unwrap());
        assert_eq!((one.len(), other.len()), (64, 64));
        assert_ne!(one, other);
    }

    #[test]
    fn a_secret_is_written_into_a_file_of_its_own() {
        let folder = gooselake_harness::temp::TempDir::new("gg-secret");
        let (path, other) = (folder.path().join("secret"), folder.path().join("other"));
        std::fs::write(&other, "of somebody").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().permissions().mode();
        write(&path, "one").unwrap();
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "of somebody");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(mode(&path) & 0o777, 0o600);
    }

    #[test]
    fn a_hash_is_that_of_the_standard() {
        // The example of FIPS 180 for "abc".
        let hex: String = hash("abc").iter().map(|byte| format!("{byte:02x}")).collect();
        let published = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex, published);
    }
}
