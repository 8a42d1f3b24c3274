//! The states of a delivery in a real database: what the table allows happens and is told, and nothing else does.

use super::NewMember;
use super::delivery::{self, Attempts, Move, NewDelivery};
use super::left_behind::{self, LeftBehind, NOT_MEMBER};
use super::message::{NEWEST, NewMessage};
use crate::ledger::{Ledger, Synchronous, Tx};
use crate::model::id;
use crate::model::team::{DeliveryStatus, InjectionStrategy, MessageScope, Policy, Priority};
use crate::thread::Thread;
use std::path::PathBuf;

/// A ledger with a team of one member, in which one message was written to nobody; ends and goes away in this order.
struct Stage {
    ledger: Ledger,
    writer: Thread,
    folder: PathBuf,
}

impl Stage {
    fn new() -> Stage {
        let folder = std::env::temp_dir().join(id::new("gooselake"));
        std::fs::create_dir_all(&folder).unwrap();
        let (ledger, writer) = Ledger::open(&folder.join("db"), Synchronous::Normal).unwrap();
        let made = ledger.write(|tx| {
            let team = tx.insert_team("team_1", "one", "sess_1", "user")?;
            tx.insert_member(&team, &member())?;
            tx.insert_message(&team, &message()).map(|_record| ())
        });
        made.unwrap();
        Stage { ledger, writer, folder }
    }

    fn end(self) {
        drop(self.ledger);
        assert!(self.writer.join());
        std::fs::remove_dir_all(self.folder).unwrap();
    }
}

fn member() -> NewMember<'static> {
    NewMember {
        agent_id: "sess_2",
        title: None,
        added_by: "user",
        creator_agent_id: None,
        creator_compaction_subscription: "off",
        worktree_id: None,
        operation_id: None,
    }
}

pub(super) fn message() -> NewMessage<'static> {
    NewMessage {
        message_id: "msg_1",
        scope: MessageScope::Direct,
        sender_agent_id: "sess_1",
        recipient_agent_ids: "[]",
        input: "[]",
        image_paths: "[]",
        content: "[]",
        priority: Priority::Normal,
        policy: Policy::NonInterrupting,
        correlation_id: None,
        reply_to_message_id: None,
        idempotency_key: None,
        body_hash: 0,
    }
}

/// A new delivery of the message; returns its key.
fn deliver(tx: &mut Tx<'_>, delivery_id: &str) -> i64 {
    let team = tx.team("team_1").unwrap();
    let message_key = tx.message(&team, "msg_1").unwrap().message_key;
    let new = NewDelivery {
        delivery_id,
        message_key,
        recipient_agent_id: "sess_2",
        provider: None,
        rank: 1,
        policy: Policy::NonInterrupting,
    };
    tx.insert_delivery(&team, &new).unwrap()
}

#[test]
fn a_state_follows_another_as_the_table_says_and_not_otherwise() {
    let stage = Stage::new();
    for (row, from) in DeliveryStatus::ALL.iter().enumerate() {
        for (column, to) in DeliveryStatus::ALL.iter().enumerate() {
            let delivery_id = format!("dlv_{row}_{column}");
            let (moved, record) = stage
                .ledger
                .write(move |tx| {
                    let delivery_key = deliver(tx, &delivery_id);
                    tx.connection().execute(
                        "UPDATE team_delivery SET status = ?2 WHERE delivery_key = ?1",
                        rusqlite::params![delivery_key, from.as_str()],
                    )?;
                    let moved = tx.move_delivery(delivery_key, &Move::to(*to))?;
                    let team = tx.team("team_1")?;
                    Ok((moved, tx.delivery(&team, &delivery_id)?))
                })
                .unwrap();
            assert_eq!(moved, to.comes_from().contains(from), "{from:?} -> {to:?}");
            let expected = if moved { to } else { from };
            assert_eq!(record.status, expected.as_str(), "{from:?} -> {to:?}");
        }
    }
    let told: i64 = stage
        .ledger
        .read(|db| {
            let all = "SELECT count(*) FROM event WHERE kind GLOB 'team_delivery.*'";
            Ok(db.query_row(all, [], |row| row.get(0))?)
        })
        .unwrap();
    let allowed: usize = DeliveryStatus::ALL.iter().map(|to| to.comes_from().len()).sum();
    assert_eq!(usize::try_from(told), Ok(allowed), "each change is told, and nothing else");
    stage.end();
}

/// The recipient leaves, or the team goes, while the message is on its way: it does not set out again.
#[test]
fn mail_under_way_to_who_has_left_goes_no_further() {
    let stage = Stage::new();
    let records = stage.ledger.write(|tx| {
        let team = tx.team("team_1")?;
        let keys = ["dlv_1", "dlv_2"].map(|delivery_id| deliver(tx, delivery_id));
        for key in keys {
            tx.claim_delivery(key, "queue")?.unwrap();
        }
        tx.delete_member(&team, "sess_2")?;
        assert!(tx.move_delivery(keys[0], &Move::to(DeliveryStatus::Deferred))?);
        tx.mark_team_deleted(&team)?;
        assert!(tx.move_delivery(keys[1], &Move::to(DeliveryStatus::Deferred))?);
        Ok([tx.delivery(&team, "dlv_1")?, tx.delivery(&team, "dlv_2")?])
    });
    let states = records.unwrap().map(|record| (record.status, record.last_error_code));
    let told = |code: &str| Some(code.to_owned());
    let expected = [("failed".to_owned(), told(NOT_MEMBER.0)), ("cancelled".to_owned(), None)];
    assert_eq!(states, expected);
    let waiting = stage.ledger.read(|db| delivery::queue(db, "sess_2", 10)).unwrap();
    assert_eq!(waiting, []);
    stage.end();
}

/// What was waiting when the team went is not brought, whoever is first to look at it.
#[test]
fn mail_of_a_team_that_is_gone_is_not_claimed() {
    let stage = Stage::new();
    let records = stage.ledger.write(|tx| {
        let team = tx.team("team_1")?;
        let keys = ["dlv_1", "dlv_2"].map(|delivery_id| deliver(tx, delivery_id));
        tx.delete_member(&team, "sess_2")?;
        let left = left_behind::of_recipient(tx.connection(), "sess_2", 10)?;
        assert_eq!(left, keys.map(|key| (key, LeftBehind::NotMember)));
        assert_eq!(tx.claim_delivery(keys[0], "queue")?, None);
        tx.mark_team_deleted(&team)?;
        let left = left_behind::of_recipient(tx.connection(), "sess_2", 10)?;
        assert_eq!(left, [(keys[1], LeftBehind::TeamGone)]);
        assert_eq!(tx.claim_delivery(keys[1], "queue")?, None);
        Ok([tx.delivery(&team, "dlv_1")?, tx.delivery(&team, "dlv_2")?])
    });
    assert_eq!(records.unwrap().map(|record| record.status), ["failed", "cancelled"]);
    stage.end();
}

#[test]
fn an_answer_to_an_old_claim_changes_nothing() {
    let stage = Stage::new();
    let record = stage.ledger.write(|tx| {
        let delivery_key = deliver(tx, "dlv_1");
        let first = tx.claim_delivery(delivery_key, "queue")?.unwrap();
        assert_eq!(tx.claim_delivery(delivery_key, "queue")?, None, "it is claimed");
        assert!(tx.move_delivery(delivery_key, &Move::to(DeliveryStatus::Deferred))?);
        let second = tx.claim_delivery(delivery_key, "queue")?.unwrap();
        let arriving = |claim, turn_id: &'static str| Move {
            turn: Some((turn_id, InjectionStrategy::SendTurn)),
            attempts: Attempts::Count,
            claim: Some(claim),
            ..Move::to(DeliveryStatus::Injected)
        };
        assert!(!tx.move_delivery(delivery_key, &arriving(first, "turn_late"))?);
        assert!(tx.move_delivery(delivery_key, &arriving(second, "turn_1"))?);
        assert!(!tx.move_delivery(delivery_key, &arriving(second, "turn_2"))?, "once is enough");
        let team = tx.team("team_1")?;
        tx.delivery(&team, "dlv_1")
    });
    let record = record.unwrap();
    assert_eq!(record.injected_turn_id.as_deref(), Some("turn_1"));
    assert_eq!((record.status.as_str(), record.attempts), ("injected", 1));
    let waiting = stage.ledger.read(|db| delivery::queue(db, "sess_2", 10)).unwrap();
    assert_eq!(waiting, []);
    stage.end();
}

/// How the database goes about a statement, whatever its values.
fn plan_of(stage: &Stage, sql: &str) -> Vec<String> {
    let plan = stage.ledger.read(|db| {
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
        let values = rusqlite::params_from_iter(vec![1; statement.parameter_count()]);
        let steps = statement.query_map(values, |row| row.get::<_, String>(3))?;
        Ok(steps.collect::<rusqlite::Result<Vec<String>>>()?)
    });
    plan.unwrap()
}

#[test]
fn the_newest_message_of_a_member_is_one_step_in_an_index() {
    let stage = Stage::new();
    for (sql, index) in NEWEST.iter().zip(["team_message_by_sender", "team_delivery_by_recipient"])
    {
        let plan = plan_of(&stage, sql);
        let wanted = format!("INDEX {index} (team_key=? AND");
        assert!(plan.len() == 1 && plan[0].contains(&wanted), "{plan:?}");
    }
    stage.end();
}

#[test]
fn mail_that_waits_is_looked_for_in_its_index() {
    let stage = Stage::new();
    for sql in [delivery::AHEAD, left_behind::WAITING, &left_behind::of_recipient_sql()] {
        let plan = plan_of(&stage, sql);
        let is_found = |step: &String| {
            ["SEARCH", "USE TEMP B-TREE", "CORRELATED"].iter().any(|word| step.starts_with(word))
        };
        assert!(plan.iter().all(is_found), "{plan:?}");
        assert!(plan.iter().any(|step| step.contains("team_delivery_waiting")), "{plan:?}");
    }
    stage.end();
}
