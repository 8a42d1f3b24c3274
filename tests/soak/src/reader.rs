//! A stream that comes and goes: opened somewhere, read in some manner, dropped.
//!
//! Owns: the reader's round, and the rule that all of them check: ids only grow, and where nothing can have been
//! dropped by age there is no hole. Its ids are those of the frames; what is in them is the witness's matter (`talk`).

use crate::load::{Counts, Player};
use gooselake_harness::client::Reply;
use gooselake_harness::stream::Stream;
use std::time::{Duration, Instant};

/// One wait for an event; then the reader sees whether its time is over.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) fn round(player: &mut Player) {
    match player.rng.below(100) {
        0..60 => follow(player),
        60..75 => replay(player),
        75..85 => drop_at_once(player),
        85..90 => watch_all(player),
        _ => read_slowly(player),
    }
}

/// From now on, and again from the cursor after a break: nothing in between is missing.
fn follow(player: &mut Player) {
    let Some(session) = player.board.any_session(&mut player.rng) else {
        return player.rest(500, 1000);
    };
    let path = format!("/v1/sessions/{session}/events/stream");
    let mut cursor = "latest".to_owned();
    let mut last = None;
    for _ in 0..1 + player.rng.below(4) {
        let Some(stream) = open(player, &path, &cursor) else { return };
        let secs = 2 + player.rng.below(15);
        last = read(
            player,
            stream,
            secs,
            |last: Option<i64>, id| {
                assert!(
                    last.is_none_or(|last| id == last + 1),
                    "{path}: {id} came behind {last:?}"
                );
            },
            last,
            |_| {},
        );
        if let Some(last) = last {
            cursor = last.to_string();
        }
        player.rest(0, 1000);
    }
}

/// From the first event that is left.
fn replay(player: &mut Player) {
    let Some(session) = player.board.any_session(&mut player.rng) else {
        return player.rest(500, 1000);
    };
    let path = format!("/v1/sessions/{session}/events/stream");
    let Some(stream) = open(player, &path, "0") else { return };
    let secs = 1 + player.rng.below(5);
    read(player, stream, secs, grows, None, |_| {});
    player.rest(0, 3000);
}

fn drop_at_once(player: &mut Player) {
    let session = player.board.any_session(&mut player.rng).unwrap_or_default();
    let path = format!("/v1/sessions/{session}/events/stream");
    drop(open(player, &path, "0"));
    player.rest(0, 2000);
}

/// The log of everything.
fn watch_all(player: &mut Player) {
    let Some(stream) = open(player, "/v1/events/stream", "latest") else { return };
    let secs = 10 + player.rng.below(30);
    read(player, stream, secs, grows, None, |_| {});
}

/// The log of everything, by a reader that takes its time: it falls behind, and the server must not hold it for that.
fn read_slowly(player: &mut Player) {
    let Some(stream) = open(player, "/v1/events/stream", "latest") else { return };
    let (secs, pause) = (10 + player.rng.below(40), 20 + player.rng.below(400));
    read(player, stream, secs, grows, None, |player| player.rest(pause, pause));
}

fn grows(last: Option<i64>, id: i64) {
    assert!(last.is_none_or(|last| id > last), "{id} came behind {last:?}");
}

/// A stream; None when its session is gone by now.
fn open(player: &Player, path: &str, cursor: &str) -> Option<Stream> {
    let (name, value) = match cursor {
        "latest" => ("X-None", ""),
        cursor => ("Last-Event-ID", cursor),
    };
    let path =
        if cursor == "latest" { format!("{path}?after_seq=latest") } else { path.to_owned() };
    match player.client.try_stream(&path, &[(name, value)]) {
        Ok(Ok(stream)) => {
            Counts::add(&player.board.counts.streams, 1);
            Some(stream)
        }
        Ok(Err(Reply { status: 404, .. })) => None,
        Ok(Err(reply)) => panic!("no stream: {reply}"),
        Err(error) => panic!("{path}: {error}"),
    }
}

/// Reads for so many seconds; gives the last id.
fn read(
    player: &mut Player,
    mut stream: Stream,
    secs: u64,
    check: impl Fn(Option<i64>, i64),
    mut last: Option<i64>,
    between: impl Fn(&mut Player),
) -> Option<i64> {
    let end = Instant::now() + Duration::from_secs(secs);
    player.board.counts.open_streams.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    while Instant::now() < end && player.goes_on() && stream.end().is_none() {
        let Some(frame) = stream.next(LOOK) else { continue };
        if let Some(id) = frame.id.as_deref().and_then(|id| id.parse().ok()) {
            check(last, id);
            last = Some(id);
            Counts::add(&player.board.counts.events, 1);
        }
        between(player);
    }
    player.board.counts.open_streams.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    last
}
