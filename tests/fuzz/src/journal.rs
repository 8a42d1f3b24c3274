//! The rules of journals: what is left of a stream reads to its end whatever the files are called and hold, and a
//! journal does what a vector of bytes would do.

use gg_keeper::journal::{Journal, Remains};
use gg_keeper::protocol::{JournalPolicy, Policy};
use gooselake_harness::temp::TempDir;
use std::path::Path;

/// Files of one input.
const FILES_MAX: usize = 6;
/// Steps of one input.
const STEPS_MAX: usize = 64;

pub(crate) fn check(input: &[u8]) {
    let folder = TempDir::new("gg-fuzz-journal");
    match input.split_first() {
        Some((0, rest)) => remains(folder.path(), rest),
        Some((kind, rest)) => journal(folder.path(), *kind, rest),
        None => {}
    }
}

/// Pieces of eight bytes of a name, one of a length, and so many of content.
fn remains(folder: &Path, mut input: &[u8]) {
    for _ in 0..FILES_MAX {
        let Some((head, rest)) = input.split_at_checked(9) else { break };
        let base = u64::from_le_bytes(head[..8].try_into().unwrap());
        let length = usize::from(head[8]).min(rest.len());
        std::fs::write(folder.join(format!("stdout.{base:020}")), &rest[..length]).unwrap();
        input = &rest[length..];
    }
    // An error is a stream that can not be read; that is told, and is no panic.
    let Ok(mut remains) = Remains::open(folder, "stdout") else { return };
    let mut offset = 0;
    let mut buffer = [0; 40];
    for _ in 0..FILES_MAX * 256 {
        let Ok((at, count)) = remains.read(offset, &mut buffer) else { return };
        assert!(at >= offset, "it goes back from {offset} to {at}");
        if count == 0 {
            return;
        }
        offset = at + count as u64;
        assert!(offset <= remains.end(), "{offset} is beyond the end {}", remains.end());
    }
    panic!("it does not come to its end");
}

/// Pieces of two bytes: what to do, and how much of it.
fn journal(folder: &Path, kind: u8, input: &[u8]) {
    let policy = match kind % 3 {
        0 => Policy::Block,
        1 => Policy::DropOldest,
        _ => Policy::DropNewest,
    };
    let policy = JournalPolicy { policy, bytes_max: 300 };
    let mut journal = Journal::create(folder, "stdout", policy, 64).unwrap();
    let mut model = Vec::new();
    for step in input.chunks_exact(2).take(STEPS_MAX) {
        let amount = u64::from(step[1]);
        match step[0] % 4 {
            0 | 1 => {
                let bytes: Vec<u8> = (0..step[1]).map(|n| n ^ step[0]).collect();
                let (count, result) = journal.append(&bytes);
                result.unwrap();
                assert_eq!(count, bytes.len());
                let room = 300usize.saturating_sub(model.len());
                let kept = if policy.policy == Policy::DropNewest { room } else { usize::MAX };
                model.extend_from_slice(&bytes[..bytes.len().min(kept)]);
            }
            2 => journal.acknowledge(amount * 4, step[0] & 4 != 0).unwrap(),
            _ => drop(journal.read(amount * 4, &mut [0; 16])),
        }
        assert_eq!(journal.end(), model.len() as u64);
    }
    let mut remains = Remains::open(folder, "stdout").unwrap();
    assert_eq!((remains.base(), remains.end()), (journal.base(), journal.end()));
    for offset in journal.base()..journal.end() {
        let (mut one, mut other) = ([0; 16], [0; 16]);
        let count = journal.read(offset, &mut one).unwrap();
        let at = usize::try_from(offset).unwrap();
        assert!(count > 0 && one[..count] == model[at..at + count], "at {offset}");
        assert_eq!(remains.read(offset, &mut other).unwrap(), (offset, count));
        assert_eq!(one, other);
    }
}
