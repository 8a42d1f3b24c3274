//! What a journal keeps, what it gives up, and what the files say when the keeper is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Journal, Remains};
use crate::protocol::{JournalPolicy, Policy};

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gg-journal-{}-{next}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn files(&self) -> Vec<String> {
        let mut files: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        files
    }

    fn bytes(&self) -> u64 {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn journal(dir: &Path, policy: Policy, bytes_max: u64) -> Journal {
    Journal::create(dir, "stdout", JournalPolicy { policy, bytes_max }, 4096).unwrap()
}

/// Bytes whose value tells their offset.
fn pattern(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(|offset| (offset % 251) as u8).collect()
}

fn append(journal: &mut Journal, len: usize) {
    let bytes = pattern(journal.end(), len);
    let (taken, result) = journal.append(&bytes);
    result.unwrap();
    assert_eq!(taken, len);
}

fn read_all(journal: &mut Journal, from: u64) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 1000];
    loop {
        let count = journal.read(from + all.len() as u64, &mut buffer).unwrap();
        if count == 0 {
            return all;
        }
        all.extend_from_slice(&buffer[..count]);
    }
}

#[test]
fn what_was_appended_is_read_back_from_any_offset_over_many_segments() {
    let folder = Folder::new();
    let mut journal = journal(&folder.0, Policy::Block, 1 << 20);
    for len in [1, 5000, 4096, 3, 20_000] {
        append(&mut journal, len);
    }
    assert!(folder.files().len() > 4, "the journal rolls: {:?}", folder.files());
    for from in [0, 1, 4095, 4096, 4097, 29_099, 29_100] {
        let len = usize::try_from(journal.end() - from).unwrap();
        assert_eq!(read_all(&mut journal, from), pattern(from, len), "from {from}");
    }
}

#[test]
fn an_acknowledged_segment_is_deleted_and_one_that_is_only_partly_so_stays() {
    let folder = Folder::new();
    let mut journal = journal(&folder.0, Policy::Block, 1 << 20);
    append(&mut journal, 10_000);
    journal.acknowledge(8191, false).unwrap();
    assert_eq!(journal.base(), 4096);
    journal.acknowledge(8192, false).unwrap();
    assert_eq!(journal.base(), 8192);
    assert_eq!(folder.files(), ["stdout.00000000000000008192"]);
    assert!(journal.read(0, &mut [0; 10]).is_err());
}

#[test]
fn a_trim_leaves_an_empty_segment_that_still_knows_the_offset() {
    let folder = Folder::new();
    let mut journal = journal(&folder.0, Policy::Block, 1 << 20);
    append(&mut journal, 5000);
    journal.acknowledge(4999, true).unwrap();
    assert_eq!(journal.base(), 4096, "one byte is not acknowledged, so nothing more goes");
    journal.acknowledge(5000, true).unwrap();
    journal.acknowledge(5000, true).unwrap();
    assert_eq!(folder.files(), ["stdout.00000000000000005000"]);
    assert_eq!(folder.bytes(), 0);
    append(&mut journal, 10);
    assert_eq!(read_all(&mut journal, 5000), pattern(5000, 10));
    let remains = Remains::open(&folder.0, "stdout").unwrap();
    assert_eq!((remains.base(), remains.end()), (5000, 5010));
}

#[test]
fn a_block_journal_is_full_by_what_is_not_acknowledged() {
    let folder = Folder::new();
    let mut journal = journal(&folder.0, Policy::Block, 100);
    append(&mut journal, 99);
    assert!(!journal.is_full());
    append(&mut journal, 1);
    assert!(journal.is_full());
    // The bound is smaller than a segment, so no file goes; the child must be read again all the
    // same.
    journal.acknowledge(1, false).unwrap();
    assert!(!journal.is_full());
    assert_eq!(read_all(&mut journal, 0).len(), 100);
}

#[test]
fn a_drop_oldest_journal_keeps_the_last_bytes_within_its_bound() {
    let folder = Folder::new();
    let mut journal = journal(&folder.0, Policy::DropOldest, 20_000);
    for _ in 0..100 {
        append(&mut journal, 1111);
        assert!(folder.bytes() <= 20_000, "{} bytes", folder.bytes());
    }
    assert!(!journal.is_full());
    assert_eq!(journal.end(), 111_100);
    assert!(journal.base() > 91_000 - 1 && journal.base() < 111_100 - 15_000);
    let base = journal.base();
    let len = usize::try_from(journal.end() - base).unwrap();
    assert_eq!(read_all(&mut journal, base), pattern(base, len));
}

#[test]
fn one_append_larger_than_a_drop_oldest_bound_keeps_its_tail() {
    let folder = Folder::new();
    let mut journal = journal(&folder.0, Policy::DropOldest, 16_384);
    append(&mut journal, 100_000);
    assert!(folder.bytes() <= 16_384);
    let base = journal.base();
    let len = usize::try_from(journal.end() - base).unwrap();
    assert_eq!(read_all(&mut journal, base), pattern(base, len));
}

#[test]
fn a_drop_newest_journal_keeps_the_first_bytes_and_counts_the_rest() {
    let folder = Folder::new();
    let mut journal = journal(&folder.0, Policy::DropNewest, 5000);
    append(&mut journal, 4990);
    append(&mut journal, 100);
    append(&mut journal, 1000);
    assert_eq!((journal.end(), journal.dropped()), (5000, 1090));
    assert_eq!(read_all(&mut journal, 0), pattern(0, 5000));
}

#[test]
fn a_write_that_fails_takes_nothing_and_the_retry_goes_on_there() {
    let folder = Folder::new();
    let mut journal = journal(&folder.0, Policy::Block, 1 << 20);
    append(&mut journal, 4096);
    // The next byte needs a new segment, and its name is taken by a folder.
    let obstacle = folder.0.join("stdout.00000000000000004096");
    fs::create_dir(&obstacle).unwrap();
    let (taken, result) = journal.append(&pattern(4096, 10));
    assert_eq!(taken, 0);
    assert!(result.is_err());
    assert_eq!(journal.end(), 4096);
    fs::remove_dir(&obstacle).unwrap();
    append(&mut journal, 10);
    assert_eq!(read_all(&mut journal, 0), pattern(0, 4106));
}

#[test]
fn a_second_journal_of_the_same_name_is_refused() {
    let folder = Folder::new();
    let _journal = journal(&folder.0, Policy::Block, 100);
    let policy = JournalPolicy { policy: Policy::Block, bytes_max: 100 };
    assert!(Journal::create(&folder.0, "stdout", policy, 4096).is_err());
}

#[test]
fn the_remains_read_as_the_journal_did_and_skip_what_is_missing() {
    let folder = Folder::new();
    let mut journal = journal(&folder.0, Policy::Block, 1 << 20);
    append(&mut journal, 10_000);
    drop(journal);
    fs::write(folder.0.join("stdout.txt"), b"not ours").unwrap();
    let mut remains = Remains::open(&folder.0, "stdout").unwrap();
    let mut buffer = vec![0; 20_000];
    assert_eq!(remains.read(100, &mut buffer).unwrap(), (100, 3996));
    assert_eq!(buffer[..3996], pattern(100, 3996));
    assert_eq!(remains.read(10_000, &mut buffer).unwrap(), (10_000, 0));

    // The machine went down and the middle segment lost its tail.
    let middle = folder.0.join("stdout.00000000000000004096");
    fs::OpenOptions::new().write(true).open(middle).unwrap().set_len(4).unwrap();
    assert_eq!(remains.read(4096, &mut buffer).unwrap(), (4096, 4));
    assert_eq!(remains.read(4100, &mut buffer).unwrap(), (8192, 1808));
    let empty = Remains::open(&folder.0, "stderr").unwrap();
    assert_eq!((empty.base(), empty.end()), (0, 0));
}
