//! Speech: an answer's text as it comes, in deltas with pauses between.
//!
//! Owns: how a text is cut and how long the mock waits where. Pure: it says when to wait, the
//! server waits. Deliberately knows no vendor; a dialect wraps each delta into its own frame.

use std::time::Duration;

use crate::plan::Act;

/// The pause after a delta of a plain text, so that a stream is seen to come in parts.
const DELTA_PAUSE: Duration = Duration::from_millis(15);
/// How many deltas a plain text has at most.
const DELTAS_MAX: usize = 6;

/// One step of speaking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beat {
    /// The next piece of the text.
    Text(String),
    /// Nothing for a while.
    Wait(Wait),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A time.
    Time(Duration),
    /// That somebody opens the gate, within the server's limit.
    Gate,
}

/// How an answer is spoken. Calls and failures have no speech.
pub fn beats(act: &Act) -> Vec<Beat> {
    let paused = |pieces: Vec<String>, pause| {
        let beat = |piece| [Beat::Text(piece), Beat::Wait(Wait::Time(pause))];
        pieces.into_iter().flat_map(beat).collect()
    };
    match act {
        Act::Say(text) => paused(pieces(text), DELTA_PAUSE),
        Act::Slow { deltas, pause_ms } => {
            let words = (1..=*deltas).map(|n| format!("w{n} ")).collect();
            paused(words, Duration::from_millis(*pause_ms))
        }
        Act::Hold => vec![
            Beat::Text("holding ".into()),
            Beat::Wait(Wait::Gate),
            Beat::Text("released".into()),
        ],
        Act::Call(_) | Act::Fail(_) => Vec::new(),
    }
}

/// The whole text of a speech.
pub fn text_of(beats: &[Beat]) -> String {
    let text = |beat: &Beat| match beat {
        Beat::Text(text) => Some(text.clone()),
        Beat::Wait(_) => None,
    };
    beats.iter().filter_map(text).collect()
}

/// The pauses of a speech, for an answer that comes whole.
pub fn waits_of(beats: &[Beat]) -> Vec<Wait> {
    let wait = |beat: &Beat| match beat {
        Beat::Wait(wait) => Some(*wait),
        Beat::Text(_) => None,
    };
    beats.iter().filter_map(wait).collect()
}

/// Cuts a text behind its spaces into a few pieces, and a single word in the middle, so that every
/// text of two letters or more takes more than one delta.
pub fn pieces(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_inclusive(char::is_whitespace).collect();
    if words.len() < 2 {
        let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
        let (first, second) = text.split_at(middle);
        let halves = [first, second];
        return halves.iter().filter(|half| !half.is_empty()).map(|half| (*half).into()).collect();
    }
    let per_piece = words.len().div_ceil(DELTAS_MAX);
    words.chunks(per_piece).map(<[&str]>::concat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_put_together_are_the_text() {
        for text in ["", "a", "ab", "日本語", "one two", "  spaced  out ", &"word ".repeat(100)]
        {
            let pieces = pieces(text);
            assert_eq!(pieces.concat(), text);
            assert!(pieces.len() <= DELTAS_MAX, "{text:?} gave {}", pieces.len());
            assert!(text.chars().count() < 2 || pieces.len() > 1, "{text:?} came in one piece");
        }
    }

    #[test]
    fn a_slow_answer_waits_after_each_word() {
        let beats = beats(&Act::Slow { deltas: 2, pause_ms: 7 });
        let wait = Beat::Wait(Wait::Time(Duration::from_millis(7)));
        let word = |text: &str| Beat::Text(text.into());
        assert_eq!(beats, [word("w1 "), wait.clone(), word("w2 "), wait]);
    }

    #[test]
    fn a_held_answer_waits_at_the_gate_in_the_middle() {
        let beats = beats(&Act::Hold);
        assert_eq!(text_of(&beats), "holding released");
        assert_eq!(waits_of(&beats), [Wait::Gate]);
    }
}
