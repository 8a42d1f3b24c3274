//! The purge of teams in a real database: it goes in small steps from wherever it was cut off, and it takes what is
//! due and nothing else.

use super::*;
use crate::ledger::event::NewEvent;
use crate::ledger::team::delivery::NewDelivery;
use crate::ledger::team::message::NewMessage;
use crate::ledger::team::operation::NewOperation;
use crate::ledger::team::tests::message;
use crate::ledger::team::{NewMember, TeamRecord};
use crate::ledger::tests::{new_session, new_turn};
use crate::ledger::turn::NewTurn;
use crate::ledger::{Ledger, Synchronous, verify};
use crate::model::event::EventKind;
use crate::model::id;
use crate::model::team::Policy;
use crate::model::team::{AssignmentMode, OperationKind, OperationStage};
use crate::model::{TurnSource, TurnStatus};
use crate::thread::Thread;
use gooselake_harness::rng::Rng;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A ledger in a folder of its own; ends and goes away with the test.
struct Stage {
    folder: PathBuf,
    opened: Option<(Ledger, Thread)>,
}

impl Stage {
    fn new() -> Stage {
        let folder = std::env::temp_dir().join(id::new("gooselake"));
        std::fs::create_dir_all(&folder).unwrap();
        let mut stage = Stage { folder, opened: None };
        stage.reopen();
        stage
    }

    /// Ends the ledger where it is, and opens it again.
    fn reopen(&mut self) {
        self.close();
        let path = self.folder.join("db");
        self.opened = Some(Ledger::open(&path, Synchronous::Normal).unwrap());
    }

    fn close(&mut self) {
        if let Some((ledger, writer)) = self.opened.take() {
            drop(ledger);
            assert!(writer.join());
        }
    }

    fn ledger(&self) -> &Ledger {
        &self.opened.as_ref().unwrap().0
    }

    fn write<T: Send + 'static>(
        &self,
        change: impl Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> T {
        self.ledger().write(change).unwrap()
    }

    fn step(&self, team_id: &str) -> bool {
        let team_id = team_id.to_owned();
        self.write(move |tx| tx.purge_team_step(&team_id))
    }

    fn due(&self, before: i64) -> Vec<String> {
        self.ledger().read(|db| due_teams(db, before, limits::RETENTION_ROWS)).unwrap()
    }

    fn code(&self, team_id: &str) -> Option<Code> {
        self.ledger().read(|db| check_settled(db, team_id)).err().map(|error| error.code)
    }

    /// All rows of all tables as text, table by table; what moves by itself is left out.
    fn dump(&self) -> BTreeMap<String, Vec<String>> {
        let read = self.ledger().read(|db| {
            let mut all = BTreeMap::new();
            for (table, _) in verify::row_counts(db)? {
                if ["ledger", "key_floor"].contains(&table.as_str()) {
                    continue;
                }
                let mut statement = db.prepare(&format!("SELECT * FROM {table}"))?;
                let columns = statement.column_count();
                let rows = statement.query_map([], |row| {
                    let cells: rusqlite::Result<Vec<rusqlite::types::Value>> =
                        (0..columns).map(|column| row.get(column)).collect();
                    Ok(format!("{:?}", cells?))
                })?;
                all.insert(table, rows.collect::<rusqlite::Result<_>>()?);
            }
            Ok(all)
        });
        read.unwrap()
    }

    fn rows(&self) -> i64 {
        let counts = self.ledger().read(verify::row_counts).unwrap();
        counts.iter().map(|(_, count)| count).sum()
    }

    /// What `verify` would find.
    fn faults(&self) -> Vec<String> {
        let read = self.ledger().read(|db| {
            let mut faults = verify::sequence(db)?;
            faults.extend(verify::references(db)?);
            faults.extend(verify::integrity(db, false)?);
            Ok(faults)
        });
        read.unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A test that fails has its own message.
        drop(self.opened.take());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// How much of each there is in a team.
#[derive(Clone, Copy)]
struct Size {
    messages: usize,
    text_bytes: usize,
    operations: usize,
    members: usize,
    events: usize,
}

const SMALL: Size = Size { messages: 3, text_bytes: 20, operations: 2, members: 2, events: 4 };

fn send(tx: &mut Tx<'_>, team: &TeamRecord, text_bytes: usize) -> Result<i64> {
    let message_id = id::new("msg");
    let content = format!("[\"{}\"]", "x".repeat(text_bytes));
    let message = tx.insert_message(
        team,
        &NewMessage { message_id: &message_id, content: &content, ..message() },
    )?;
    let new = NewDelivery {
        delivery_id: &id::new("dlv"),
        message_key: message.message_key,
        recipient_agent_id: "sess_2",
        provider: None,
        rank: 1,
        policy: Policy::NonInterrupting,
    };
    let delivery_key = tx.insert_delivery(team, &new)?;
    set_delivery(tx, delivery_key, "injected", None)?;
    Ok(delivery_key)
}

fn set_delivery(
    tx: &mut Tx<'_>,
    delivery_key: i64,
    status: &str,
    turn_id: Option<&str>,
) -> Result<()> {
    let sql = "UPDATE team_delivery SET status = ?2, injected_turn_id = ?3 WHERE delivery_key = ?1";
    tx.connection().execute(sql, params![delivery_key, status, turn_id])?;
    Ok(())
}

/// A team in which everything is over; returns one of its deliveries.
fn make_team(tx: &mut Tx<'_>, team_id: &str, size: Size) -> Result<i64> {
    let team = tx.insert_team(team_id, "crew", "sess_1", "user")?;
    for number in 0..size.members {
        let agent_id = format!("sess_{number}");
        tx.insert_member(
            &team,
            &NewMember {
                agent_id: &agent_id,
                title: None,
                added_by: "user",
                creator_agent_id: None,
                creator_compaction_subscription: "auto",
                worktree_id: None,
                operation_id: None,
            },
        )?;
    }
    for _ in 0..size.operations {
        let operation_id = id::new("op");
        let new = NewOperation {
            operation_id: &operation_id,
            kind: OperationKind::Remove,
            stage: OperationStage::MemberLeft,
            source_session_id: None,
            session_id: None,
            worktree_id: None,
            worktree_assignment_mode: AssignmentMode::None,
            request: "{}",
            enrolment: None,
        };
        tx.begin_operation(&team, &new)?;
        tx.note_diagnostic(&operation_id, "code", "message", "{}")?;
        tx.move_operation(&operation_id, OperationStage::Completed, &Default::default())?;
    }
    for _ in 0..size.events {
        let payload = "{\"n\":1}".to_owned();
        tx.append(NewEvent::team(team_id, EventKind::TeamMemberJoined, payload))?;
    }
    let mut delivery_key = 0;
    for _ in 0..size.messages {
        delivery_key = send(tx, &team, size.text_bytes)?;
    }
    Ok(delivery_key)
}

fn delete_at(tx: &mut Tx<'_>, team_id: &str, time: i64) -> Result<()> {
    let sql = "UPDATE team SET deleted_at = ?2 WHERE team_id = ?1";
    tx.connection().execute(sql, params![team_id, time])?;
    Ok(())
}

/// A session with a turn in this state.
fn make_turn(tx: &mut Tx<'_>, session_id: &str, turn_id: &str, status: TurnStatus) -> Result<()> {
    let session_key = tx.insert_session(&new_session(session_id))?;
    let source = TurnSource::Team;
    tx.insert_turn(&NewTurn {
        status: TurnStatus::Queued,
        source,
        ..new_turn(turn_id, session_key)
    })?;
    let sql = "UPDATE turn SET status = ?2 WHERE turn_id = ?1";
    tx.connection().execute(sql, params![turn_id, status.as_str()])?;
    Ok(())
}

#[test]
fn a_large_team_goes_in_small_steps_that_may_be_cut_off_anywhere() {
    let mut stage = Stage::new();
    let large = Size { messages: 700, text_bytes: 40, operations: 300, members: 600, events: 900 };
    stage.write(|tx| make_team(tx, "team_stays", SMALL));
    let others = stage.dump();
    stage.write(move |tx| make_team(tx, "team_goes", large));
    assert_eq!(stage.ledger().write(|tx| tx.purge_team_step("team_goes")).unwrap_err().code, {
        Code::Conflict
    });
    stage.write(|tx| delete_at(tx, "team_goes", 1));
    let step_rows = i64::try_from(limits::RETENTION_ROWS).unwrap();
    let (mut rows, mut steps) = (stage.rows(), 0);
    loop {
        let is_over = stage.step("team_goes");
        let left = stage.rows();
        // The scope and the team itself come on top of the last step.
        let most = if is_over { step_rows + 2 } else { step_rows };
        assert!((1..=most).contains(&(rows - left)), "{} rows in step {steps}", rows - left);
        (rows, steps) = (left, steps + 1);
        assert_eq!(stage.faults(), [] as [String; 0], "after step {steps}");
        if is_over {
            break;
        }
        if steps % 4 == 0 {
            stage.reopen();
        }
    }
    assert!(steps > 12, "{steps} steps");
    assert_eq!(stage.dump(), others);
    assert!(stage.step("team_goes"), "once more finds nothing");
    assert_eq!(stage.code("team_goes"), Some(Code::NotFound));
}

#[test]
fn a_step_takes_few_bytes() {
    let stage = Stage::new();
    let heavy = Size { messages: 4, text_bytes: limits::RETENTION_BYTES * 6 / 10, ..SMALL };
    stage.write(move |tx| make_team(tx, "team_1", heavy));
    stage.write(|tx| delete_at(tx, "team_1", 1));
    let weight = || {
        let sql = "SELECT ifnull(sum(octet_length(content)), 0) FROM team_message";
        let read = stage.ledger().read(|db| Ok(db.query_row(sql, [], |row| row.get::<_, i64>(0))?));
        usize::try_from(read.unwrap()).unwrap()
    };
    let mut before = weight();
    loop {
        let is_over = stage.step("team_1");
        let after = weight();
        assert!(before - after <= limits::RETENTION_BYTES, "{} bytes at once", before - after);
        before = after;
        if is_over {
            break;
        }
    }
    assert_eq!(before, 0);
}

#[test]
fn what_is_live_is_not_due_whatever_its_age() {
    let stage = Stage::new();
    stage.write(|tx| make_team(tx, "team_open", SMALL));
    for status in ["pending", "deferred", "injecting", "injected", "failed", "cancelled"] {
        let team_id = format!("team_{status}");
        stage.write(move |tx| {
            let delivery_key = make_team(tx, &team_id, SMALL)?;
            delete_at(tx, &team_id, 10)?;
            set_delivery(tx, delivery_key, status, None)
        });
    }
    for status in TurnStatus::ALL {
        let name = status.as_str();
        stage.write(move |tx| {
            let (team_id, turn_id) = (format!("team_turn_{name}"), format!("turn_{name}"));
            make_turn(tx, &format!("sess_{name}"), &turn_id, *status)?;
            let delivery_key = make_team(tx, &team_id, SMALL)?;
            delete_at(tx, &team_id, 11)?;
            set_delivery(tx, delivery_key, "injected", Some(&turn_id))
        });
    }
    stage.write(|tx| {
        make_team(tx, "team_operation", SMALL)?;
        delete_at(tx, "team_operation", 12)?;
        let sql = "UPDATE team_operation SET finished_at = NULL WHERE team_key =
                       (SELECT team_key FROM team WHERE team_id = 'team_operation')";
        tx.connection().execute(sql, [])?;
        make_team(tx, "team_young", SMALL)?;
        delete_at(tx, "team_young", 20)
    });
    let due = [
        "team_injected",
        "team_failed",
        "team_cancelled",
        "team_turn_completed",
        "team_turn_interrupted",
        "team_turn_failed",
    ];
    assert_eq!(stage.due(20), due);
    assert_eq!(stage.due(21).last().unwrap(), "team_young");
    assert_eq!(stage.due(10), [] as [&str; 0]);
    assert_eq!(stage.ledger().read(|db| first_deleted_at(db, 13)).unwrap(), Some(20));
    for team_id in due {
        assert_eq!(stage.code(team_id), None, "{team_id}");
    }
    for team_id in ["team_open", "team_pending", "team_deferred", "team_injecting"] {
        assert_eq!(stage.code(team_id), Some(Code::Conflict), "{team_id}");
    }
    for team_id in ["team_turn_queued", "team_turn_in_progress", "team_operation"] {
        assert_eq!(stage.code(team_id), Some(Code::Conflict), "{team_id}");
    }
}

#[test]
fn no_key_is_given_twice() {
    let mut stage = Stage::new();
    stage.write(|tx| make_team(tx, "team_1", SMALL));
    let newest = |stage: &Stage| -> Vec<i64> {
        let all = [
            Keyed::Scope,
            Keyed::Team,
            Keyed::Message,
            Keyed::Delivery,
            Keyed::Operation,
            Keyed::Diagnostic,
        ];
        let key = |keyed: Keyed| {
            let sql = format!("SELECT max({}) FROM {}", keyed.column(), keyed.table());
            stage.ledger().read(|db| Ok(db.query_row(&sql, [], |row| row.get(0))?)).unwrap()
        };
        all.into_iter().map(key).collect()
    };
    let before = newest(&stage);
    stage.write(|tx| delete_at(tx, "team_1", 1));
    while !stage.step("team_1") {}
    stage.reopen();
    let one = Size { messages: 1, operations: 1, events: 1, ..SMALL };
    stage.write(move |tx| make_team(tx, "team_2", one));
    let after = newest(&stage);
    let expected: Vec<i64> = before.iter().map(|key| key + 1).collect();
    assert_eq!(after, expected);
}

/// Random teams, of which some are due: the purge takes these and changes no row of the others.
#[test]
fn a_purge_of_what_is_due_leaves_every_other_row_as_it_was() {
    let mut rng = Rng::from_environment();
    for round in 0..8 {
        let stage = Stage::new();
        let now = 1000;
        let mut ids: Vec<String> = (0..12).map(|number| format!("team_{number}")).collect();
        for team_id in &ids {
            let size = Size {
                messages: rng.below(40) as usize,
                text_bytes: rng.below(200_000) as usize,
                operations: rng.below(10) as usize,
                members: rng.below(10) as usize,
                events: rng.below(60) as usize,
            };
            let deleted_at = rng.chance(70).then(|| now - 50 + rng.below(100).cast_signed());
            let status = *rng.pick(&["injected", "injected", "failed", "deferred"]);
            let (name, turn) = (team_id.clone(), rng.chance(30));
            let turn_status = *rng.pick(TurnStatus::ALL);
            stage.write(move |tx| {
                let delivery_key = make_team(tx, &name, size)?;
                let turn_id = format!("turn_of_{name}");
                make_turn(tx, &format!("sess_of_{name}"), &turn_id, turn_status)?;
                let carried = (turn && status == "injected").then_some(turn_id.as_str());
                set_delivery(tx, delivery_key, status, carried)?;
                deleted_at.map_or(Ok(()), |time| delete_at(tx, &name, time))
            });
        }
        let due = stage.due(now);
        ids.retain(|team_id| !due.contains(team_id));
        let keys_of = |ids: &[String]| -> Vec<(i64, i64)> {
            let key = |team_id: &String| {
                let read = stage.ledger().read(|db| {
                    let scope = event::scope_key(db, ScopeKind::Team, team_id).optional()?;
                    Ok((get_any(db, team_id)?.team_key, scope.unwrap_or(0)))
                });
                read.unwrap()
            };
            ids.iter().map(key).collect()
        };
        let (due_keys, kept) = (keys_of(&due), stage.dump());
        for team_id in &due {
            while !stage.step(team_id) {}
        }
        let after = stage.dump();
        let is_of_due = |table: &str, row: &str| {
            // The first columns name the owner; each table has its own order of them.
            due_keys.iter().any(|(team_key, scope_key)| match table {
                "team" | "team_member" => row.starts_with(&format!("[Integer({team_key}),")),
                "scope" => row.starts_with(&format!("[Integer({scope_key}),")),
                "event" => row.split(", ").nth(1) == Some(&format!("Integer({scope_key})")),
                "team_message" => row.split(", ").nth(2) == Some(&format!("Integer({team_key})")),
                "team_delivery" => row.split(", ").nth(3) == Some(&format!("Integer({team_key})")),
                "team_operation" => row.split(", ").nth(2) == Some(&format!("Integer({team_key})")),
                _ => false,
            })
        };
        for (table, rows) in kept.iter().filter(|(table, _)| *table != "team_operation_diagnostic")
        {
            let expected: Vec<&String> = rows.iter().filter(|row| !is_of_due(table, row)).collect();
            let found: Vec<&String> = after[table].iter().collect();
            assert_eq!(found, expected, "{table} in round {round}");
        }
        assert_eq!(stage.faults(), [] as [String; 0]);
        assert_eq!(stage.due(now), [] as [&str; 0]);
    }
}
