//! Approval records. Each is answered once: the condition is in the statement that answers.

use super::session::json_of;
use super::{Listed, Most, Tx, listed};
use crate::error::{Code, Error, Result};
use crate::model::{ApprovalOrigin, ApprovalStatus};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::value::RawValue;

/// An approval as clients see it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Approval"))]
pub struct ApprovalRecord {
    #[serde(skip)]
    pub approval_key: i64,
    #[serde(skip)]
    pub session_key: i64,
    #[serde(skip)]
    pub turn_key: i64,
    #[serde(skip)]
    pub adapter_key: Option<String>,
    pub id: String,
    pub session_id: String,
    pub turn_id: String,
    #[cfg_attr(test, schemars(with = "crate::model::ApprovalOrigin"))]
    pub origin: String,
    #[cfg_attr(test, schemars(with = "crate::model::ApprovalStatus"))]
    pub status: String,
    pub title: String,
    #[cfg_attr(test, schemars(with = "crate::model::shape::ApprovalSubject"))]
    pub subject: Box<RawValue>,
    #[cfg_attr(test, schemars(with = "Vec<crate::model::shape::ApprovalOption>"))]
    pub options: Box<RawValue>,
    /// The item that it is about.
    pub tool_call_id: Option<String>,
    pub provider_approval_ref: String,
    /// `{"reason": title}`, in the words of older clients.
    pub request: RequestReason,
    pub decision: Option<String>,
    pub scope: Option<String>,
    pub decided_by: Option<String>,
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    pub response: Option<Box<RawValue>>,
    pub withdrawn_reason: Option<String>,
    pub created_at: i64,
    pub expires_at: Option<i64>,
    pub resolved_at: Option<i64>,
}

impl ApprovalRecord {
    /// Errors: it was answered, or is over by itself; the error has the record.
    pub fn check_pending(&self) -> Result<()> {
        if self.status == ApprovalStatus::Pending.as_str() {
            return Ok(());
        }
        let what = format!("approval {} is not pending: it is {}", self.id, self.status);
        Err(Error::new(Code::AlreadyResolved, what).detail("approval", super::to_json(self)))
    }
}

#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RequestReason {
    pub reason: String,
}

pub struct NewApproval<'a> {
    pub approval_id: &'a str,
    pub session_key: i64,
    pub turn_id: &'a str,
    pub origin: ApprovalOrigin,
    pub title: &'a str,
    pub subject: &'a str,
    pub options: &'a str,
    pub item_id: Option<&'a str>,
    pub adapter_key: Option<&'a str>,
    pub expires_at: Option<i64>,
}

/// How an approval ended.
#[derive(Debug, Default)]
pub struct Resolution {
    pub decision: Option<String>,
    pub scope: Option<String>,
    pub decided_by: Option<String>,
    pub response: Option<String>,
    pub withdrawn_reason: Option<String>,
}

#[derive(Debug, Default)]
pub struct ApprovalQuery {
    pub session_key: Option<i64>,
    pub status: Option<String>,
    pub after: Option<i64>,
    pub most: Most,
}

const SELECT: &str = "SELECT approval_key, approval.session_key, approval.turn_key, adapter_key, \
    approval_id, session_id, turn_id, origin, approval.status, approval.title, subject, options, \
    item_id, decision, decision_scope, decided_by, response, withdrawn_reason, \
    approval.created_at, expires_at, resolved_at \
    FROM approval JOIN session USING (session_key) JOIN turn USING (turn_key)";

fn record_of(row: &Row<'_>) -> rusqlite::Result<ApprovalRecord> {
    let id: String = row.get(4)?;
    let title: String = row.get(9)?;
    Ok(ApprovalRecord {
        approval_key: row.get(0)?,
        session_key: row.get(1)?,
        turn_key: row.get(2)?,
        adapter_key: row.get(3)?,
        provider_approval_ref: id.clone(),
        id,
        session_id: row.get(5)?,
        turn_id: row.get(6)?,
        origin: row.get(7)?,
        status: row.get(8)?,
        request: RequestReason { reason: title.clone() },
        title,
        subject: json_of(row.get(10)?),
        options: json_of(row.get(11)?),
        tool_call_id: row.get(12)?,
        decision: row.get(13)?,
        scope: row.get(14)?,
        decided_by: row.get(15)?,
        response: row.get::<_, Option<String>>(16)?.map(json_of),
        withdrawn_reason: row.get(17)?,
        created_at: row.get(18)?,
        expires_at: row.get(19)?,
        resolved_at: row.get(20)?,
    })
}

/// Errors: there is no such approval.
pub fn get(connection: &Connection, approval_id: &str) -> Result<ApprovalRecord> {
    connection
        .prepare_cached(&format!("{SELECT} WHERE approval_id = ?1"))?
        .query_row([approval_id], record_of)
        .optional()?
        .ok_or_else(|| Error::not_found("approval", approval_id))
}

/// Oldest first.
pub fn list(connection: &Connection, query: &ApprovalQuery) -> Result<Listed<ApprovalRecord>> {
    let mut conditions = vec!["1"];
    let mut values = Vec::new();
    if let Some(session_key) = query.session_key {
        conditions.push("approval.session_key = ?");
        values.push(Sql::Integer(session_key));
    }
    if let Some(status) = &query.status {
        conditions.push("approval.status = ?");
        values.push(Sql::Text(status.clone()));
    }
    if let Some(after) = query.after {
        conditions.push("approval_key > ?");
        values.push(Sql::Integer(after));
    }
    values.push(Sql::Integer(query.most.limit()));
    let mut statement = connection.prepare_cached(&format!(
        "{SELECT} WHERE {} ORDER BY approval_key LIMIT ?",
        conditions.join(" AND ")
    ))?;
    listed::read(statement.query(rusqlite::params_from_iter(values))?, query.most, record_of)
}

impl Tx<'_> {
    pub fn insert_approval(&mut self, new: &NewApproval<'_>) -> Result<()> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "INSERT INTO approval (approval_id, session_key, turn_key, origin, status, title,
                     subject, options, item_id, adapter_key, created_at, expires_at)
                 VALUES (?1, ?2, (SELECT turn_key FROM turn WHERE turn_id = ?3), ?4, 'pending', ?5,
                     ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                new.approval_id,
                new.session_key,
                new.turn_id,
                new.origin.as_str(),
                new.title,
                new.subject,
                new.options,
                new.item_id,
                new.adapter_key,
                now_ms,
                new.expires_at,
            ])?;
        Ok(())
    }

    pub fn approval(&mut self, approval_id: &str) -> Result<ApprovalRecord> {
        get(self.connection(), approval_id)
    }

    /// Ends a pending approval. Errors: `already_resolved`, with the record, when it is not pending any more.
    pub fn resolve_approval(
        &mut self,
        approval_id: &str,
        status: ApprovalStatus,
        resolution: &Resolution,
    ) -> Result<()> {
        let now_ms = self.now_ms();
        let changed = self
            .connection()
            .prepare_cached(
                "UPDATE approval SET status = ?2, decision = ?3, decision_scope = ?4,
                     decided_by = ?5, response = ?6, withdrawn_reason = ?7, resolved_at = ?8
                 WHERE approval_id = ?1 AND status = 'pending'",
            )?
            .execute(params![
                approval_id,
                status.as_str(),
                resolution.decision,
                resolution.scope,
                resolution.decided_by,
                resolution.response,
                resolution.withdrawn_reason,
                now_ms,
            ])?;
        if changed == 1 {
            return Ok(());
        }
        let record = get(self.connection(), approval_id)?;
        Err(Error::new(
            Code::AlreadyResolved,
            format!("approval {approval_id} is not pending: it is {}", record.status),
        )
        .detail("approval", super::to_json(&record)))
    }

    /// Withdraws all that is pending in a session.
    pub fn withdraw_pending(&mut self, session_key: i64, reason: &str) -> Result<()> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "UPDATE approval SET status = 'withdrawn', withdrawn_reason = ?2, resolved_at = ?3
                 WHERE session_key = ?1 AND status = 'pending'",
            )?
            .execute(params![session_key, reason, now_ms])?;
        Ok(())
    }
}
