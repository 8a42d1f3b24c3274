//! The purge of a closed session in a real database goes in steps that are small in rows and in bytes.

use crate::ledger::approval::NewApproval;
use crate::ledger::event::NewEvent;
use crate::ledger::item::NewItem;
use crate::ledger::tests::{Folder, new_session};
use crate::ledger::turn::NewTurn;
use crate::ledger::{Tx, verify};
use crate::limits;
use crate::model::event::EventKind;
use crate::model::{ApprovalOrigin, ItemStatus, ItemType, TurnSource, TurnStatus};

/// What a session's rows weigh, the log among them.
const WEIGHT: &str = "SELECT
    (SELECT ifnull(sum(octet_length(payload)), 0) FROM event)
    + (SELECT ifnull(sum(octet_length(body)), 0) FROM item)
    + (SELECT ifnull(sum(octet_length(subject)), 0) FROM approval)
    + (SELECT ifnull(sum(octet_length(input)), 0) FROM turn)";

const ROWS: &str = "SELECT (SELECT count(*) FROM event) + (SELECT count(*) FROM item)
    + (SELECT count(*) FROM approval) + (SELECT count(*) FROM turn)";

/// A session of so many turns, each with two items, a question and an event, of so many bytes each.
fn make_session(tx: &mut Tx<'_>, turns: usize, bytes: usize) -> crate::error::Result<()> {
    let session_key = tx.insert_session(&new_session("sess_1"))?;
    let text = format!("[\"{}\"]", "x".repeat(bytes));
    let body = format!("{{\"text\":{text}}}");
    for number in 0..turns {
        let turn_id = format!("turn_{number}");
        tx.insert_turn(&NewTurn {
            session_key,
            turn_id: &turn_id,
            status: TurnStatus::Queued,
            source: TurnSource::User,
            input: &text,
            model: None,
            mode: None,
            reasoning_level: None,
            permission_mode: None,
            is_taken: false,
        })?;
        for name in ["a", "b"] {
            tx.insert_item(&NewItem {
                item_id: &format!("item_{number}_{name}"),
                session_key,
                turn_id: &turn_id,
                item_type: ItemType::AssistantMessage,
                status: ItemStatus::Completed,
                body: &body,
                started_seq: 1,
                adapter_key: None,
                created_at: 1,
            })?;
        }
        tx.insert_approval(&NewApproval {
            approval_id: &format!("approval_{number}"),
            session_key,
            turn_id: &turn_id,
            origin: ApprovalOrigin::Tool,
            title: "a question",
            subject: &body,
            options: "[]",
            item_id: None,
            adapter_key: None,
            expires_at: None,
        })?;
        tx.append(NewEvent::session("sess_1", EventKind::SessionUpdated, body.as_str()))?;
    }
    Ok(())
}

/// Purges such a session step by step, and says how many steps that took.
fn check(turns: usize, bytes: usize) -> usize {
    let folder = Folder::new();
    let opened = folder.ledger();
    let ledger = &opened.ledger;
    ledger.write(move |tx| make_session(tx, turns, bytes)).unwrap();
    let number = |sql: &str| -> usize {
        let number = ledger.read(|db| Ok(db.query_row(sql, [], |row| row.get::<_, i64>(0))?));
        number.unwrap().try_into().unwrap()
    };
    let (mut weight, mut rows) = (number(WEIGHT), number(ROWS));
    assert_eq!(rows, 5 * turns);
    let mut steps = 0;
    loop {
        let is_over = ledger.write(|tx| tx.purge_step("sess_1")).unwrap();
        let (left, rows_left) = (number(WEIGHT), number(ROWS));
        steps += 1;
        assert!(rows_left < rows, "step {steps} removes nothing");
        let (gone, rows_gone) = (weight - left, rows - rows_left);
        assert!(gone <= limits::RETENTION_BYTES, "{gone} bytes at once, in step {steps}");
        assert!(rows_gone <= limits::RETENTION_ROWS, "{rows_gone} rows at once, in step {steps}");
        assert!(ledger.read(verify::sequence).unwrap().is_empty(), "after step {steps}");
        (weight, rows) = (left, rows_left);
        if is_over {
            assert_eq!((weight, rows), (0, 0));
            assert_eq!(number("SELECT count(*) FROM session"), 0);
            return steps;
        }
    }
}

#[test]
fn a_step_takes_few_rows_of_a_session() {
    // 3500 rows.
    assert_eq!(check(700, 10), 3500_usize.div_ceil(limits::RETENTION_ROWS));
}

#[test]
fn a_step_takes_few_bytes_of_a_session() {
    assert_eq!(check(3, limits::RETENTION_BYTES * 6 / 10), 15, "one row in each");
}

/// What a call of a tool has to say when it ends has no place any more.
#[test]
fn a_call_of_a_tool_goes_with_its_session() {
    let folder = Folder::new();
    let opened = folder.ledger();
    let ledger = &opened.ledger;
    ledger.write(|tx| make_session(tx, 1, 10)).unwrap();
    ledger
        .write(|tx| {
            tx.insert_tool_call("call_1", "sess_1", None, "{}")?;
            tx.insert_tool_call("call_2", "sess_1", None, "{}")
        })
        .unwrap();
    assert!(ledger.write(|tx| tx.delete_tool_call("call_1")).unwrap());
    while !ledger.write(|tx| tx.purge_step("sess_1")).unwrap() {}
    assert!(!ledger.write(|tx| tx.delete_tool_call("call_2")).unwrap());
}
