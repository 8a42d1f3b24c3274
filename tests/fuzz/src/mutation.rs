//! Mutations of an input, from a seeded source of numbers.
//!
//! Pure. What is done is what breaks parsers of lines, of JSON and of counted frames: bits, bytes, numbers at their
//! bounds, cuts, repeats, and a piece of another input in the middle.

use gooselake_harness::rng::Rng;

/// No input grows beyond it.
const BYTES_MAX: usize = 64 * 1024;

/// Words that mean something to one of the targets.
const WORDS: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b"\"",
    b"\\",
    b"{}",
    b"[]",
    b"null",
    b"-1",
    b"9223372036854775807",
    b"18446744073709551615",
    b"1e999",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\xf0\x9f\xa6\x86",
    b"\xc3",
    b"%00",
    b"%ff",
    b"--",
    b"!t",
    b"!r\n",
    b"!e\n",
    b"[[[[[[[[[[[[[[[[",
];

/// A changed copy of one of the inputs. Panics: there is none.
pub fn of(inputs: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = rng.pick(inputs).clone();
    for _ in 0..=rng.below(4) {
        change(&mut input, inputs, rng);
    }
    input.truncate(BYTES_MAX);
    input
}

fn change(input: &mut Vec<u8>, inputs: &[Vec<u8>], rng: &mut Rng) {
    let at = place(input.len() + 1, rng);
    let end = at + place(input.len() + 1 - at, rng);
    match rng.below(9) {
        0 | 1 if at < input.len() => input[at] ^= 1 << rng.below(8),
        2 if at < input.len() => input[at] = rng.next_u64().to_le_bytes()[0],
        3 => drop(input.drain(at..end)),
        4 => input.truncate(at),
        5 => {
            let again = input[at..end].to_vec();
            input.splice(end..end, again);
        }
        6 => {
            let other = rng.pick(inputs);
            let from = place(other.len() + 1, rng);
            let to = from + place(other.len() + 1 - from, rng);
            input.splice(at..end, other[from..to].iter().copied());
        }
        _ => drop(input.splice(at..at, rng.pick(WORDS).iter().copied())),
    }
}

fn place(bound: usize, rng: &mut Rng) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap_or_default()
}
