//! Item records: what was said and done in a turn, piece by piece.

use super::{Listed, Most, Tx, listed, to_json};
use crate::error::Result;
use crate::limits;
use crate::model::{ItemStatus, ItemType, ScopeKind};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Row, params};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// An item as clients see it: these keys, and those of its type.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Item"))]
pub struct ItemRecord {
    #[serde(skip)]
    pub item_key: i64,
    pub item_id: String,
    pub session_id: String,
    pub turn_id: String,
    #[serde(rename = "type")]
    #[cfg_attr(test, schemars(with = "crate::model::ItemType"))]
    pub item_type: String,
    #[cfg_attr(test, schemars(with = "crate::model::ItemStatus"))]
    pub status: String,
    pub created_at: i64,
    pub completed_at: Option<i64>,
    #[serde(flatten)]
    #[cfg_attr(test, schemars(with = "crate::model::shape::ItemBody"))]
    pub body: Map<String, Value>,
}

/// An item that was open when the server stopped.
#[derive(Clone, Debug)]
pub struct OpenItem {
    pub item_key: i64,
    pub item_id: String,
    pub turn_id: String,
    pub item_type: ItemType,
    pub body: Map<String, Value>,
    pub started_seq: i64,
    pub adapter_key: String,
    pub created_at: i64,
}

pub struct NewItem<'a> {
    pub item_id: &'a str,
    pub session_key: i64,
    pub turn_id: &'a str,
    pub item_type: ItemType,
    pub status: ItemStatus,
    pub body: &'a str,
    pub started_seq: i64,
    /// None for an item that is done at once.
    pub adapter_key: Option<&'a str>,
    /// As the event of the item tells it; also the time of its end when it is done at once.
    pub created_at: i64,
}

fn record_of(row: &Row<'_>) -> rusqlite::Result<ItemRecord> {
    let body: String = row.get(8)?;
    Ok(ItemRecord {
        item_key: row.get(0)?,
        item_id: row.get(1)?,
        session_id: row.get(2)?,
        turn_id: row.get(3)?,
        item_type: row.get(4)?,
        status: row.get(5)?,
        created_at: row.get(6)?,
        completed_at: row.get(7)?,
        body: object_of(&body),
    })
}

fn object_of(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).expect("the ledger holds JSON that was serialised by us")
}

/// The items of a session, or of one of its turns, oldest first, behind `after` (an item key).
fn list(
    connection: &Connection,
    session_key: i64,
    turn_key: Option<i64>,
    after: Option<i64>,
    most: Most,
) -> Result<Listed<ItemRecord>> {
    let mut conditions = vec!["item.session_key = ?"];
    let mut values = vec![Sql::Integer(session_key)];
    if let Some(turn_key) = turn_key {
        conditions.push("item.turn_key = ?");
        values.push(Sql::Integer(turn_key));
    }
    if let Some(after) = after {
        conditions.push("item_key > ?");
        values.push(Sql::Integer(after));
    }
    values.push(Sql::Integer(most.limit()));
    let mut statement = connection.prepare_cached(&format!(
        "SELECT item_key, item_id, session_id, turn_id, type, item.status, item.created_at,
             item.completed_at, body
         FROM item JOIN session USING (session_key) JOIN turn USING (turn_key)
         WHERE {} ORDER BY item_key LIMIT ?",
        conditions.join(" AND ")
    ))?;
    listed::read(statement.query(rusqlite::params_from_iter(values))?, most, record_of)
}

/// What the agent has said in a turn, oldest first, message by message: the last of them, up to the first that brings
/// them to so many bytes.
pub fn said(connection: &Connection, turn_key: i64, bytes_max: usize) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT body ->> 'text' FROM item
         WHERE turn_key = ?1 AND type = 'assistant_message' AND completed_at IS NOT NULL
         ORDER BY item_key DESC",
    )?;
    let mut rows = statement.query([turn_key])?;
    let (mut said, mut bytes) = (Vec::new(), 0);
    while let (true, Some(row)) = (bytes < bytes_max, rows.next()?) {
        let text: String = row.get::<_, Option<String>>(0)?.unwrap_or_default();
        bytes += text.len();
        said.push(text);
    }
    said.reverse();
    Ok(said)
}

/// The items that were open when the last commit was made, oldest first, without what their deltas added.
pub fn open_items(connection: &Connection, session_key: i64) -> Result<Vec<OpenItem>> {
    let mut statement = connection.prepare_cached(
        "SELECT item_key, item_id, type, body, started_seq, adapter_key, item.created_at, turn_id
         FROM item JOIN turn USING (turn_key)
         WHERE item.session_key = ?1 AND item.status = 'in_progress' ORDER BY item_key",
    )?;
    let items = statement.query_map([session_key], |row| {
        Ok(OpenItem {
            item_key: row.get(0)?,
            item_id: row.get(1)?,
            item_type: ItemType::parse(&row.get::<_, String>(2)?).unwrap_or(ItemType::Other),
            body: object_of(&row.get::<_, String>(3)?),
            started_seq: row.get(4)?,
            adapter_key: row.get::<_, Option<String>>(5)?.unwrap_or_default(),
            created_at: row.get(6)?,
            turn_id: row.get(7)?,
        })
    })?;
    Ok(items.collect::<rusqlite::Result<_>>()?)
}

/// Adds to the bodies of open items what their deltas in the log have added: text and output appended, fields replaced.
/// Each delta is read once, however many items there are. False when it is more than so many bytes: then some is
/// missing.
pub fn grow(
    connection: &Connection,
    scope_key: i64,
    items: &mut [OpenItem],
    bytes_max: usize,
) -> Result<bool> {
    let Some(started_seq) = items.iter().map(|item| item.started_seq).min() else {
        return Ok(true);
    };
    let places: HashMap<String, usize> =
        items.iter().enumerate().map(|(place, item)| (item.item_id.clone(), place)).collect();
    let mut statement = connection.prepare_cached(
        "SELECT payload FROM event
         WHERE scope_key = ?1 AND seq > ?2 AND kind = 'item.delta' ORDER BY seq",
    )?;
    let mut rows = statement.query(params![scope_key, started_seq])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let payload = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        // The id is looked for first: most deltas of a busy session are another item's.
        let Some(place) = item_of(payload).and_then(|item_id| places.get(item_id)) else {
            continue;
        };
        bytes += payload.len();
        if bytes > bytes_max {
            return Ok(false);
        }
        add_delta(&mut items[*place].body, &object_of(payload));
    }
    Ok(true)
}

/// The id in the payload of a delta: in a text its quotes would be escaped, and fields that are set come behind it.
fn item_of(payload: &str) -> Option<&str> {
    let (_, behind) = payload.split_once("\"item_id\":\"")?;
    behind.split_once('"').map(|(item_id, _)| item_id)
}

fn add_delta(body: &mut Map<String, Value>, payload: &Map<String, Value>) {
    for (name, value) in payload.get("set").and_then(Value::as_object).into_iter().flatten() {
        match value {
            Value::Null => drop(body.remove(name)),
            value => drop(body.insert(name.clone(), value.clone())),
        }
    }
    let text = payload.get("delta").and_then(Value::as_str);
    let field = payload.get("field").and_then(Value::as_str);
    if let (Some(text), Some(field)) = (text, field) {
        let is_cut = match body.get_mut(field) {
            Some(Value::String(sum)) => {
                sum.push_str(text);
                field == "output" && cut_output(sum)
            }
            _ => {
                body.insert(field.to_owned(), Value::from(text));
                false
            }
        };
        if is_cut {
            body.insert(OUTPUT_TRUNCATED.to_owned(), Value::from(true));
        }
    }
}

/// The field of an item of whose output the beginning is left out.
pub const OUTPUT_TRUNCATED: &str = "output_truncated";

/// Output keeps its end, where the outcome is; whether something was cut.
pub fn cut_output(output: &mut String) -> bool {
    if output.len() <= limits::ITEM_TEXT_BYTES {
        return false;
    }
    let cut = output.len() - limits::ITEM_TEXT_BYTES / 2;
    output.drain(..output.ceil_char_boundary(cut));
    true
}

/// As [`list`], and open items are shown with all that they have said so far, which has the bound of bytes for itself.
pub fn list_grown(
    connection: &Connection,
    session_id: &str,
    turn_key: Option<i64>,
    after: Option<i64>,
    most: Most,
) -> Result<Listed<ItemRecord>> {
    let session_key = super::session::key(connection, session_id)?;
    let mut items = list(connection, session_key, turn_key, after, most)?;
    let is_open = |record: &ItemRecord| record.status == ItemStatus::InProgress.as_str();
    if !items.records.iter().any(is_open) {
        return Ok(items);
    }
    let all = open_items(connection, session_key)?;
    // What is on the page, in its order. Where it says too much for one page, the page ends in its middle.
    let mut open: Vec<OpenItem> = items
        .records
        .iter()
        .filter_map(|record| all.iter().find(|item| item.item_id == record.item_id).cloned())
        .collect();
    let scope_key = super::event::scope_key(connection, ScopeKind::Session, session_id)?;
    loop {
        let bytes_max = if open.len() > 1 { most.bytes.saturating_mul(2) } else { usize::MAX };
        let mut grown = open.clone();
        if grow(connection, scope_key, &mut grown, bytes_max)? {
            open = grown;
            break;
        }
        open.truncate(open.len() / 2);
        let last = open.last().map(|item| item.item_key);
        items.records.retain(|record| Some(record.item_key) <= last);
        items.is_cut = true;
    }
    let mut open = open.into_iter().peekable();
    items.cut_at(most.bytes, |record| {
        let Some(item) = open.next_if(|item| item.item_id == record.item_id) else { return Ok(0) };
        record.body = item.body;
        Ok(to_json(&record.body).len())
    })?;
    Ok(items)
}

impl Tx<'_> {
    pub fn insert_item(&mut self, new: &NewItem<'_>) -> Result<()> {
        let completed_at = (new.status != ItemStatus::InProgress).then_some(new.created_at);
        self.connection()
            .prepare_cached(
                "INSERT INTO item (item_id, session_key, turn_key, type, status, body,
                     started_seq, adapter_key, created_at, completed_at)
                 VALUES (?1, ?2, (SELECT turn_key FROM turn WHERE turn_id = ?3), ?4, ?5, ?6, ?7,
                     ?8, ?9, ?10)",
            )?
            .execute(params![
                new.item_id,
                new.session_key,
                new.turn_id,
                new.item_type.as_str(),
                new.status.as_str(),
                new.body,
                new.started_seq,
                new.adapter_key,
                new.created_at,
                completed_at,
            ])?;
        Ok(())
    }

    /// New fields, and perhaps a better type, of an open item.
    pub fn set_item_body(&mut self, item_id: &str, item_type: ItemType, body: &str) -> Result<()> {
        self.connection()
            .prepare_cached("UPDATE item SET type = ?2, body = ?3 WHERE item_id = ?1")?
            .execute(params![item_id, item_type.as_str(), body])?;
        Ok(())
    }

    /// Ends an open item; the time is the one that its event tells.
    pub fn complete_item(
        &mut self,
        item_id: &str,
        item_type: ItemType,
        status: ItemStatus,
        body: &str,
        completed_at: i64,
    ) -> Result<()> {
        self.connection()
            .prepare_cached(
                "UPDATE item SET type = ?2, status = ?3, body = ?4, adapter_key = NULL,
                     completed_at = ?5
                 WHERE item_id = ?1",
            )?
            .execute(params![item_id, item_type.as_str(), status.as_str(), body, completed_at])?;
        Ok(())
    }

    /// Ends all open items of a session as failed, with the text that they were stored with.
    pub fn end_open_items(&mut self, session_key: i64) -> Result<()> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "UPDATE item SET status = 'failed', adapter_key = NULL, completed_at = ?2
                 WHERE session_key = ?1 AND status = 'in_progress'",
            )?
            .execute(params![session_key, now_ms])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::ledger::event::NewEvent;
    use crate::ledger::tests::{Folder, new_session, new_turn};
    use crate::model::event::EventKind;
    use serde_json::json;

    /// A session with a turn and these open items.
    fn open_session(ledger: &Ledger, items: &'static [&str]) {
        let insert = move |tx: &mut Tx<'_>| {
            let session_key = tx.insert_session(&new_session("sess_1"))?;
            tx.insert_turn(&new_turn("turn_1", session_key))?;
            for item_id in items {
                let event = NewEvent::session("sess_1", EventKind::ItemStarted, "{}");
                let started_seq = tx.append(event)?;
                tx.insert_item(&NewItem {
                    item_id,
                    session_key,
                    turn_id: "turn_1",
                    item_type: ItemType::Command,
                    status: ItemStatus::InProgress,
                    body: "{}",
                    started_seq,
                    adapter_key: Some(item_id),
                    created_at: 1,
                })?;
            }
            Ok(())
        };
        ledger.write(insert).unwrap();
    }

    fn say(ledger: &Ledger, item_id: &'static str, text: &str) {
        let payload = json!({"item_id": item_id, "field": "output", "delta": text}).to_string();
        let append = move |tx: &mut Tx<'_>| {
            let event = NewEvent::session("sess_1", EventKind::ItemDelta, payload.as_str());
            tx.append(event).map(drop)
        };
        ledger.write(append).unwrap();
    }

    #[test]
    fn open_items_are_shown_with_all_they_said_as_far_as_a_page_goes() {
        let folder = Folder::new();
        let opened = folder.ledger();
        open_session(&opened.ledger, &["a", "b", "c", "d"]);
        for item_id in ["a", "b", "c", "d", "a"] {
            say(&opened.ledger, item_id, "0123456789");
        }
        let page = |after, bytes| {
            let most = Most { rows: 10, bytes };
            let read = |db: &Connection| list_grown(db, "sess_1", None, after, most);
            opened.ledger.read(read).unwrap()
        };
        let said = |listed: &Listed<ItemRecord>| -> Vec<usize> {
            let length = |it: &ItemRecord| it.body["output"].as_str().unwrap().len();
            listed.records.iter().map(length).collect()
        };
        let whole = page(None, usize::MAX);
        assert_eq!((said(&whole), whole.is_cut), (vec![20, 10, 10, 10], false));
        // Less than all of it, and less than one: each page has at least one item, and the next one goes on behind it.
        for bytes in [60, 1] {
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let listed = page(after, bytes);
                all.extend(said(&listed));
                after = listed.records.last().map(|last| last.item_key);
                if !listed.is_cut {
                    break;
                }
            }
            assert_eq!(all, [20, 10, 10, 10], "{bytes}");
        }
    }

    #[test]
    fn output_that_is_read_from_the_log_keeps_its_end_as_it_does_in_memory() {
        let folder = Folder::new();
        let opened = folder.ledger();
        open_session(&opened.ledger, &["a"]);
        let piece = "x".repeat(limits::ITEM_TEXT_BYTES / 2);
        for _ in 0..4 {
            say(&opened.ledger, "a", &piece);
        }
        say(&opened.ledger, "a", "the end");
        let most = Most::rows(10);
        let read = |db: &Connection| list_grown(db, "sess_1", None, None, most);
        let body = opened.ledger.read(read).unwrap().records.remove(0).body;
        let output = body["output"].as_str().unwrap();
        assert!(output.len() <= limits::ITEM_TEXT_BYTES && output.ends_with("the end"));
        assert_eq!(body[OUTPUT_TRUNCATED], true);
    }

    #[test]
    fn what_was_said_last_is_read_as_far_as_it_is_kept() {
        let folder = Folder::new();
        let opened = folder.ledger();
        let insert = |tx: &mut Tx<'_>| {
            let session_key = tx.insert_session(&new_session("sess_1"))?;
            tx.insert_turn(&new_turn("turn_1", session_key))?;
            let (said, ran) = (ItemType::AssistantMessage, ItemType::Command);
            let (whole, open) = (ItemStatus::Completed, ItemStatus::InProgress);
            for (item_id, item_type, status, body) in [
                ("1", said, whole, r#"{"text":"one"}"#),
                ("2", ran, whole, r#"{"text":"no","output":"no"}"#),
                ("3", said, whole, r#"{"text":"three"}"#),
                ("4", said, whole, "{}"),
                ("5", said, open, r#"{"text":"not yet"}"#),
            ] {
                tx.insert_item(&NewItem {
                    item_id,
                    session_key,
                    turn_id: "turn_1",
                    item_type,
                    status,
                    body,
                    started_seq: 0,
                    adapter_key: None,
                    created_at: 1,
                })?;
            }
            Ok(())
        };
        opened.ledger.write(insert).unwrap();
        let of = |bytes_max| opened.ledger.read(|db| said(db, 1, bytes_max)).unwrap();
        assert_eq!(of(100), ["one", "three", ""]);
        assert_eq!(of(6), ["one", "three", ""]);
        assert_eq!(of(5), ["three", ""]);
        assert!(of(0).is_empty());
    }
}
