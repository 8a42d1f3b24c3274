//! Reading logs, held against the plainest way to do the same with the whole file in memory.

use super::*;
use crate::model::id;

/// A file that goes away with the test.
struct Sample(PathBuf);

impl Sample {
    fn new(bytes: &[u8]) -> Sample {
        let path = std::env::temp_dir().join(id::new("gooselake-log"));
        std::fs::write(&path, bytes).unwrap();
        Sample(path)
    }

    fn window(&self, end: usize, head_lines: usize, tail_lines: usize, bytes_max: usize) -> Part {
        let window = Window { head_lines, tail_lines, bytes_max: bytes_max as u64 };
        read_window(&self.0, end as u64, window).unwrap()
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// What a window must be, without a bound on bytes.
fn expected(bytes: &[u8], head: usize, tail: usize) -> (Vec<u8>, bool) {
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let ended = |lines: &[&[u8]]| {
        let mut bytes = lines.concat();
        end_line(&mut bytes);
        bytes
    };
    if head + tail >= lines.len() {
        return (ended(&lines), false);
    }
    let rest = ended(&lines[lines.len() - tail..]);
    if head == 0 {
        return (rest, true);
    }
    ([ended(&lines[..head]), GAP.to_vec(), rest].concat(), true)
}

/// A small generator of numbers: the same seed gives the same test.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        usize::try_from((self.0 >> 33) % bound).unwrap()
    }
}

#[test]
fn head_and_tail_are_what_the_whole_file_says() {
    let mut numbers = Numbers(7);
    for round in 0..300 {
        let length = numbers.below(400);
        let letters = b"ab\n\nc\xff\xc3\xa9";
        let bytes: Vec<u8> = (0..length).map(|_| letters[numbers.below(8)]).collect();
        let sample = Sample::new(&bytes);
        let end = numbers.below(length as u64 + 1);
        let (head, tail) = (numbers.below(30), numbers.below(30));
        let part = sample.window(end, head, tail, usize::MAX);
        let (wanted, is_cut) = expected(&bytes[..end], head, tail);
        assert_eq!(part, Part { bytes: wanted, is_cut }, "round {round}: {head} {tail} {bytes:?}");
    }
}

#[test]
fn lines_longer_than_a_block_are_found_from_both_ends() {
    let long = vec![b'x'; 200_000];
    let bytes = [&b"first\n"[..], &long, b"\nsecond\n", &long, b"\nlast"].concat();
    let sample = Sample::new(&bytes);
    let part = sample.window(bytes.len(), 1, 1, usize::MAX);
    assert_eq!(part.bytes, b"first\n...\nlast\n");
    let part = sample.window(bytes.len(), 0, 2, usize::MAX);
    assert_eq!(part.bytes.len(), 200_000 + 6);
    assert!(part.is_cut);
}

#[test]
fn a_bound_on_bytes_keeps_the_end_and_is_never_passed() {
    let mut numbers = Numbers(11);
    let bytes: Vec<u8> = (0..5_000).map(|n| if n % 7 == 0 { b'\n' } else { b'y' }).collect();
    let sample = Sample::new(&bytes);
    for _ in 0..100 {
        let (head, tail) = (numbers.below(50), numbers.below(800));
        let most = numbers.below(300);
        let part = sample.window(bytes.len(), head, tail, most);
        assert!(part.bytes.len() <= most);
        let (whole, _) = expected(&bytes, head, tail);
        if tail > most {
            assert_eq!(part.bytes, whole[whole.len() - most..], "{head} {tail} {most}");
            assert!(part.is_cut);
        }
    }
}

#[test]
fn pages_by_offset_give_the_whole_file() {
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let sample = Sample::new(&bytes);
    let mut seen = Vec::new();
    while seen.len() < bytes.len() {
        let at = seen.len() as u64;
        let page = read_from(&sample.0, bytes.len() as u64, at, 7_001).unwrap();
        assert!(!page.is_empty());
        seen.extend(page);
    }
    assert_eq!(seen, bytes);
    assert!(read_from(&sample.0, bytes.len() as u64, 200_000, 10).unwrap().is_empty());
}

#[test]
fn a_log_that_is_gone_is_empty() {
    let path = std::env::temp_dir().join(id::new("gooselake-none"));
    let window = Window { head_lines: 1, tail_lines: 1, bytes_max: 10 };
    assert_eq!(read_window(&path, 10, window).unwrap(), Part::default());
    assert!(read_from(&path, 10, 0, 10).unwrap().is_empty());
}

#[test]
fn an_open_character_is_told_from_a_whole_one() {
    for (bytes, open) in [
        (&b"a"[..], 0),
        (b"", 0),
        (b"\xc3", 1),
        (b"\xc3\xa9", 0),
        (b"\xe2\x82", 2),
        (b"\xe2\x82\xac", 0),
        (b"\xf0\x9f\x98", 3),
        (b"\xf0\x9f\x98\x80", 0),
        (b"\x80\x80\x80\x80", 0),
        (b"\xff", 0),
    ] {
        assert_eq!(open_character(bytes), open, "{bytes:?}");
    }
}
