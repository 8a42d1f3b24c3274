//! What a disk may hold when the power goes: a model of the database's files, fed from a trace of calls.
//!
//! Owns: the names and contents of three files (the database, its write-ahead log, its rollback journal). A sync makes
//! the content of one file certain, a sync of the folder the names. What was written since is uncertain: any part of it
//! may be there, in any order, cut in sectors of 512 bytes; what the names point to may be the last or any earlier
//! state. That a file system keeps more order than this does not matter: a database that is whole on this disk is whole
//! on that one.

use gooselake_harness::rng::Rng;
use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

const SECTOR: usize = 512;

const HEAD: usize = 16;

/// A point in the trace: how many bytes of it were there in which life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) life: u64,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Call {
    /// Where its record ends.
    pub(super) place: Place,
    op: Op,
    /// Which of [`SUFFIXES`].
    file: usize,
}

#[derive(Clone, Debug)]
enum Op {
    Create,
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
    Sync,
    Unlink,
    SyncFolder,
}

const SUFFIXES: [&str; 3] = ["", "-wal", "-journal"];
const WAL: usize = 1;

/// All calls, in order.
pub(super) struct Trace {
    pub(super) records: Vec<Call>,
}

impl Trace {
    pub(super) fn read(lives: u64, path: impl Fn(u64) -> PathBuf) -> Trace {
        let mut records = Vec::new();
        for life in 0..lives {
            let path = path(life);
            let bytes = fs::read(&path).unwrap_or_else(|error| {
                panic!("{}: {error}", path.display());
            });
            let mut at = 0;
            // The last record of a killed server may be cut; nothing came after it.
            while let Some((op, file, length)) = parse(&bytes[at..]) {
                at += length;
                let place = Place { life, bytes: at as u64 };
                records.push(Call { place, op, file });
            }
        }
        // Checkpoints in the middle of the load are what there is to get wrong.
        let is_checkpoint = |call: &&Call| call.file == 0 && matches!(call.op, Op::Sync);
        let checkpoints = records.iter().filter(is_checkpoint).count();
        assert!(checkpoints > 4, "{} calls, {checkpoints} checkpoints", records.len());
        Trace { records }
    }

    /// How many calls have come when the power goes: any number, half of the time one beside a sync. Not before
    /// `first`.
    pub(super) fn moment(&self, rng: &mut Rng, first: Place) -> usize {
        let least = self.records.partition_point(|call| call.place < first) + 1;
        let span = (self.records.len() - least) as u64 + 1;
        let any = least + usize::try_from(rng.below(span)).expect("it is an index");
        if rng.chance(50) {
            return any;
        }
        let is_sync = |call: &Call| matches!(call.op, Op::Sync | Op::SyncFolder | Op::Unlink);
        let next = self.records[any - 1..].iter().position(is_sync);
        let sync = next.map_or(self.records.len(), |behind| any + behind);
        (sync - usize::try_from(rng.below(2)).expect("0 or 1")).max(least)
    }
}

/// The first record, with its length; None when it is not there whole.
fn parse(bytes: &[u8]) -> Option<(Op, usize, usize)> {
    let head = bytes.get(..HEAD)?;
    let length = u32::from_ne_bytes(head[4..8].try_into().ok()?) as usize;
    let offset = usize::try_from(u64::from_ne_bytes(head[8..16].try_into().ok()?)).ok()?;
    let content = bytes.get(HEAD..HEAD + length)?;
    let op = match head[0] {
        1 => Op::Create,
        2 => Op::Write { at: offset, bytes: content.to_vec() },
        3 => Op::Truncate(offset),
        4 => Op::Sync,
        5 => Op::Unlink,
        6 => Op::SyncFolder,
        other => panic!("{other} is no call"),
    };
    Some((op, usize::from(head[1]).saturating_sub(1), HEAD + length))
}

/// A file, whatever its name: what is certain of it, and what was done since.
#[derive(Default)]
struct Content {
    certain: Vec<u8>,
    since: Vec<Op>,
    /// The sectors that those calls have made others than they are for certain.
    sectors_since: HashSet<usize>,
}

/// Which content each name has.
type Names = [Option<usize>; 3];

#[derive(Default)]
pub(super) struct Disk {
    contents: Vec<Content>,
    /// The names as the running system has them, and the states since the last sync of the folder, that first.
    names: Names,
    uncertain: Vec<Names>,
    certain: Names,
}

impl Disk {
    pub(super) fn take(&mut self, call: &Call) {
        match &call.op {
            Op::Create => {
                self.contents.push(Content::default());
                self.names[call.file] = Some(self.contents.len() - 1);
                self.uncertain.push(self.names);
            }
            Op::Unlink => {
                self.names[call.file] = None;
                self.uncertain.push(self.names);
            }
            Op::SyncFolder => {
                self.uncertain.clear();
                self.certain = self.names;
            }
            Op::Write { .. } | Op::Truncate(_) => {
                // A file that has lost its name is nobody's.
                if let Some(content) = self.names[call.file] {
                    let content = &mut self.contents[content];
                    content.since.push(call.op.clone());
                    if let Op::Write { at, bytes } = &call.op {
                        for (sector, piece) in sectors(*at, bytes) {
                            let start = at + piece.start;
                            let certain = content.certain.get(start..start + piece.len());
                            if certain != Some(&bytes[piece]) {
                                content.sectors_since.insert(sector);
                            }
                        }
                    }
                }
            }
            Op::Sync => {
                if let Some(content) = self.names[call.file] {
                    let content = &mut self.contents[content];
                    content.sectors_since.clear();
                    for op in content.since.drain(..) {
                        apply(&mut content.certain, &op, |_sector| true);
                    }
                }
            }
        }
    }

    /// Bytes of the write-ahead log that were written and not synced.
    pub(super) fn log_bytes_at_risk(&self) -> usize {
        self.names[WAL].map_or(0, |content| self.contents[content].sectors_since.len() * SECTOR)
    }

    /// Writes one of the states that this disk may be in.
    pub(super) fn write_what_is_left(&self, folder: &Path, name: &str, rng: &mut Rng) {
        fs::create_dir_all(folder).expect("a temporary folder");
        let states = self.uncertain.len() as u64 + 1;
        let names = match usize::try_from(rng.below(states)).expect("an index") {
            0 => self.certain,
            state => self.uncertain[state - 1],
        };
        for (suffix, content) in SUFFIXES.iter().zip(names) {
            let Some(content) = content else { continue };
            let bytes = self.contents[content].what_is_left(rng);
            fs::write(folder.join(format!("{name}{suffix}")), bytes).expect("a temporary file");
        }
    }
}

impl Content {
    fn what_is_left(&self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.certain.clone();
        let count = self.since.len() as u64;
        match rng.below(5) {
            // Nothing of it, all of it, a beginning of it.
            0 => {}
            1 => self.since.iter().for_each(|op| apply(&mut bytes, op, |_sector| true)),
            2 => {
                let kept = usize::try_from(rng.below(count + 1)).expect("an index");
                self.since[..kept].iter().for_each(|op| apply(&mut bytes, op, |_sector| true));
            }
            // Any of it, whole; any of it, torn.
            way => {
                let share = 5 + rng.below(90);
                for op in &self.since {
                    if way == 4 {
                        apply(&mut bytes, op, |_sector| rng.chance(share));
                    } else if rng.chance(share) {
                        apply(&mut bytes, op, |_sector| true);
                    }
                }
            }
        }
        bytes
    }
}

/// Does to the bytes what the call did, as far as sectors are kept; a hole that this leaves is zeros.
fn apply(into: &mut Vec<u8>, op: &Op, mut is_kept: impl FnMut(usize) -> bool) {
    match op {
        Op::Truncate(length) => {
            if is_kept(0) {
                into.resize(*length, 0);
            }
        }
        Op::Write { at, bytes } => {
            for (sector, piece) in sectors(*at, bytes) {
                if is_kept(sector) {
                    let (start, end) = (at + piece.start, at + piece.end);
                    if into.len() < end {
                        into.resize(end, 0);
                    }
                    into[start..end].copy_from_slice(&bytes[piece]);
                }
            }
        }
        Op::Create | Op::Sync | Op::Unlink | Op::SyncFolder => {}
    }
}

/// The sectors that a write touches, each with the part of the bytes that goes into it.
fn sectors(at: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, Range<usize>)> {
    let (end, mut from) = (bytes.len(), 0);
    std::iter::from_fn(move || {
        let sector = (at + from) / SECTOR;
        let piece = from..((sector + 1) * SECTOR - at).min(end);
        from = piece.end;
        (!piece.is_empty()).then_some((sector, piece))
    })
}
