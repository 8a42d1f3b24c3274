//! The checks on kept findings, on their seeds, and on seeded mutations of these.
//!
//! The number of rounds is fixed, and so is the source of numbers: a run is the same on every machine, and takes
//! seconds. What looks for new findings is libFuzzer (`make fuzz`).

#![allow(clippy::unwrap_used, reason = "the whole program is a test")]

use gooselake_fuzz::{TARGETS, Target, mutation};
use gooselake_harness::rng::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

const FINDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/fuzz");

fn run(target: &Target, input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.check)(input))).is_err() {
        let shown = String::from_utf8_lossy(&input[..input.len().min(4000)]);
        panic!("{}, {what}, {} bytes:\n{shown:?}", target.name, input.len());
    }
}

fn mutated(part: usize) {
    for target in TARGETS.iter().skip(part).step_by(3) {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for (place, seed) in seeds.iter().enumerate() {
            run(target, seed, &format!("seed {place}"));
        }
        let mut rng = Rng::new(0x6007_5e1a_4e00);
        for round in 0..target.rounds {
            run(target, &mutation::of(&seeds, &mut rng), &format!("round {round}"));
        }
    }
}

#[test]
fn mutated_inputs_break_no_rule_first_third() {
    mutated(0);
}

#[test]
fn mutated_inputs_break_no_rule_second_third() {
    mutated(1);
}

#[test]
fn mutated_inputs_break_no_rule_last_third() {
    mutated(2);
}

#[test]
fn what_was_found_once_stays_mended() {
    let mut played = 0;
    for entry in std::fs::read_dir(FINDINGS).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let target = gooselake_fuzz::target(&name).unwrap_or_else(|| panic!("no target {name}"));
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            run(target, &std::fs::read(&path).unwrap(), &path.display().to_string());
            played += 1;
        }
    }
    assert!(played > 0, "nothing in {}", Path::new(FINDINGS).display());
}
