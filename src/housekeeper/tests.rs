//! Rounds of the housekeeper on a real ledger: what can not be done now does not keep it awake, nor from the rest.

use super::*;
use crate::ledger::Synchronous;
use crate::ledger::session;
use crate::ledger::tests::insert_closed;

/// Closed longer ago than sessions are kept here.
const OLD: i64 = 1000;

#[test]
fn what_can_not_be_purged_stands_in_nobodys_way_and_is_tried_again_after_a_round() {
    let folder = std::env::temp_dir().join(id::new("gooselake"));
    std::fs::create_dir_all(folder.join("demo")).unwrap();
    let opened = Ledger::open(&folder.join("db"), Synchronous::Normal).unwrap();
    // The ledger is dropped first, also by a failure: its thread is waited for.
    let (writer, ledger) = (opened.1, opened.0);
    let (_stop, end) = crossbeam_channel::bounded(0);
    let house = Housekeeper {
        ledger: ledger.clone(),
        processes: None,
        delta_retention: None,
        session_retention: Some(Duration::from_secs(24 * 3600)),
        team_retention: None,
        keepers_dir: folder.join("keepers"),
        providers_dir: folder.clone(),
    };
    let mut round =
        Round { house: &house, end: &end, failed: HashMap::new(), pauses: Pauses::default() };
    let made = ledger.write(|tx| {
        // More than one look finds, and behind them one that is free to go.
        for number in 0..limits::RETENTION_ROWS {
            insert_closed(tx, &format!("stuck_{number}"), OLD)?;
        }
        insert_closed(tx, "free", OLD + 1)?;
        // The agent of this one has not ended.
        let session_key = insert_closed(tx, "live", OLD)?;
        tx.insert_agent(session_key, "agent_live", "{}")
    });
    made.unwrap();
    let stuck: Vec<String> =
        (0..limits::RETENTION_ROWS).map(|number| format!("stuck_{number}")).collect();
    // What an agent has left is in a folder; a file in its place is not removed.
    stuck.iter().for_each(|id| std::fs::write(folder.join("demo").join(id), "").unwrap());
    let is_there = |id: &str| ledger.read(|db| session::get(db, id)).is_ok();

    // A full look may have left some behind; the next one has not.
    assert_eq!(round.run().ok(), Some(ROUND_MIN));
    assert_eq!(round.run().ok(), Some(ROUND));
    assert!(!is_there("free") && is_there("live"));
    assert!(stuck.iter().all(|id| is_there(id)));

    stuck.iter().for_each(|id| std::fs::remove_file(folder.join("demo").join(id)).unwrap());
    assert_eq!(round.run().ok(), Some(ROUND));
    assert!(stuck.iter().all(|id| is_there(id)), "they have their time");
    round.forget_failed(Instant::now() + ROUND);
    assert_eq!(round.run().ok(), Some(ROUND_MIN));
    assert!(!stuck.iter().any(|id| is_there(id)) && is_there("live"));
    assert_eq!(round.run().ok(), Some(ROUND));

    drop((house, ledger));
    assert!(writer.join());
    std::fs::remove_dir_all(&folder).unwrap();
}
