//! The models, one after the other; `model <name>` runs those whose name holds the word.
//!
//! Owns: the frame around files of the server. They are the server's own (`#[path]`), not copies: what they use beside
//! locks is here in the least form that compiles. loom runs each model once for every order of its threads that can
//! make a difference, and fails when one of them ends in a deadlock, which a lost wake-up is: its clock stands still,
//! so no timeout hides one. One thread; the threads of a model are loom's.

mod keeper;
mod ledger;
#[path = "../../../src/limits.rs"]
#[allow(dead_code, reason = "the server's bounds, of which the tail uses three")]
mod limits;
#[path = "../../../src/sync.rs"]
mod sync;

use std::time::Instant;

/// All models.
const MODELS: &[(&str, fn())] = &[
    ("an_answer_wakes_its_caller", ledger::model::an_answer_wakes_its_caller),
    ("who_is_woken_wakes_the_others", ledger::model::who_is_woken_wakes_the_others),
    (
        "an_end_without_an_answer_wakes_the_caller",
        ledger::model::an_end_without_an_answer_wakes_the_caller,
    ),
    ("a_commit_wakes_the_streams_of_its_scope", ledger::model::a_commit_wakes_its_streams),
    ("a_stream_that_leaves_takes_no_wake_up_along", ledger::model::leaving_takes_no_wake_up_along),
    ("a_close_ends_every_wait", ledger::model::a_close_ends_every_wait),
    ("a_bell_rings_for_what_changed", ledger::model::a_bell_rings_for_what_changed),
    ("an_old_record_is_not_kept", ledger::model::an_old_record_is_not_kept),
    ("what_is_put_into_an_outbox_is_written", keeper::model::what_is_put_is_written),
    ("an_outbox_that_is_let_go_ends_its_writer", keeper::model::letting_go_ends_the_writer),
];

fn main() {
    let word = std::env::args().nth(1).unwrap_or_default();
    let mut ran = 0;
    for (name, model) in MODELS.iter().filter(|(name, _)| name.contains(&word)) {
        let begun = Instant::now();
        model();
        println!("{name}: ok, {} ms", begun.elapsed().as_millis());
        ran += 1;
    }
    assert!(ran > 0, "no model is called like {word}");
}
