//! Turns: start, queue, wait, show, interrupt; and what a client may put into one.

use super::body::{NoFields, check_words};
use super::{Api, Call, json, page, wait};
use crate::error::{Code, Error, Result};
use crate::http::{Answer, Response};
use crate::ledger::turn::TurnRecord;
use crate::ledger::{event, idempotency, item, session, to_json, turn};
use crate::model::input::Input;
use crate::model::{ScopeKind, TurnSource, TurnStatus};
use crate::provider::check_permission_mode;
use crate::session::input::{self, check_supported};
use crate::session::{TurnRequest, When};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long `wait=true` waits when the client does not say, and at most.
const WAIT_MS: i64 = 300_000;
const WAIT_MS_MAX: i64 = 3_600_000;

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "TurnCreate"))]
pub(super) struct CreateBody {
    #[cfg_attr(test, schemars(with = "Vec<crate::model::shape::GivenInput>"))]
    input: Vec<Value>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::shape::WhenWord>"))]
    when: Option<String>,
    expected_turn_id: Option<String>,
    model: Option<String>,
    mode: Option<String>,
    reasoning_level: Option<String>,
    permission_mode: Option<String>,
}

pub(super) fn create(api: &Api, call: &Call) -> Result<Answer> {
    let session_id = call.part(0);
    let wait_ms = wait_ms(call)?;
    let body: CreateBody = call.body()?;
    check_words([
        ("model", &body.model),
        ("mode", &body.mode),
        ("reasoning_level", &body.reasoning_level),
        ("permission_mode", &body.permission_mode),
    ])?;
    let idempotency = call.idempotency(api)?;
    // Before the machine is looked at: files may be gone since.
    let made = |key| api.ledger.read(|db| idempotency::find(db, key));
    if let Some(turn_id) = idempotency.as_ref().map(made).transpose()?.flatten() {
        let _waiting = wait_ms.map(|_| api.waits.take(call)).transpose()?;
        return api.accepted(call, &turn_id, wait_ms);
    }
    let record = api.ledger.read(|db| session::get_private(db, session_id))?;
    call.check_items(&body.input)?;
    let input = api.input(&body.input)?;
    check_supported(&input, record.capabilities.as_deref())?;
    if let Some(permission_mode) = &body.permission_mode {
        check_permission_mode(&record.provider, permission_mode)?;
    }
    let when = match body.when.as_deref() {
        None | Some("now") => When::Now,
        Some("queue") => When::Queue,
        Some("steer") => When::Steer,
        Some(other) => {
            return Err(Error::bad_request(format!("when is {other:?}"))
                .hint("it can be \"now\", \"queue\" or \"steer\""));
        }
    };
    let request = TurnRequest {
        input,
        source: TurnSource::User,
        when,
        expected_turn_id: body.expected_turn_id,
        model: body.model,
        mode: body.mode,
        reasoning_level: body.reasoning_level,
        permission_mode: body.permission_mode,
        idempotency,
        is_taken: false,
    };
    // Before the turn: a wait that is refused starts nothing.
    let _waiting = wait_ms.map(|_| api.waits.take(call)).transpose()?;
    let turn_id = api.sessions.start_turn(session_id, request)?;
    api.accepted(call, &turn_id, wait_ms)
}

/// None = do not wait.
fn wait_ms(call: &Call) -> Result<Option<i64>> {
    let timeout_ms = call.count("timeout_ms")?.unwrap_or(WAIT_MS);
    let is_wait = call.is_on("wait", false)?;
    Ok(is_wait.then_some(timeout_ms.min(WAIT_MS_MAX)))
}

pub(super) fn get(api: &Api, call: &Call) -> Result<Answer> {
    let wait_ms = call.count("wait_ms")?.unwrap_or(0).min(WAIT_MS_MAX);
    let _waiting = (wait_ms > 0).then(|| api.waits.take(call)).transpose()?;
    let record = api.wait_for_turn(call, call.part(1), wait_ms)?;
    Ok(json(200, to_json(&record)))
}

pub(super) fn list(api: &Api, call: &Call) -> Result<Answer> {
    let statuses: Vec<&str> = TurnStatus::ALL.iter().map(|status| status.as_str()).collect();
    let status = call.one_of("status", &statuses)?;
    let most = call.most(1000)?;
    let after = call.number("cursor")?;
    let turns = api.ledger.read(|db| {
        let session_key = session::key(db, call.part(0))?;
        turn::list(db, session_key, status, after, most)
    })?;
    Ok(Answer::Whole(page(&turns, |last| last.turn_key.to_string())))
}

pub(super) fn items(api: &Api, call: &Call) -> Result<Answer> {
    let most = call.most(1000)?;
    let after = call.number("cursor")?;
    let items = api.ledger.read(|db| {
        let turn_key = turn::get(db, call.part(0), call.part(1))?.turn_key;
        item::list_grown(db, call.part(0), Some(turn_key), after, most)
    })?;
    Ok(Answer::Whole(page(&items, |last| last.item_key.to_string())))
}

pub(super) fn interrupt(api: &Api, call: &Call) -> Result<Answer> {
    let NoFields {} = call.optional_body()?;
    api.sessions.interrupt(call.part(0), call.part(1))?;
    Ok(Answer::Whole(Response::new(202)))
}

/// Errors: who takes the text alone would take what there is for the whole answer. The turn is in them.
fn check_answered(record: &TurnRecord) -> Result<()> {
    let has_text = record.assistant_text.as_ref().is_some_and(|text| !text.is_empty());
    let error = if record.status == TurnStatus::Failed.as_str() {
        let told = record.error.as_deref().map(RawValue::get).unwrap_or("null");
        let told: Value = serde_json::from_str(told).unwrap_or_default();
        let message = told["message"].as_str().or(record.stop_reason.as_deref());
        let text = format!("turn {} failed: {}", record.id, message.unwrap_or("no reason told"));
        Error::new(Code::AgentFailed, text)
    } else if record.status == TurnStatus::Interrupted.as_str() && !has_text {
        let text = format!("turn {} was interrupted before anything was said", record.id);
        Error::new(Code::Conflict, text)
    } else {
        return Ok(());
    };
    Err(error.detail("turn", to_json(record)))
}

impl Api {
    /// What the request for a turn is answered, at once or when it has waited.
    fn accepted(&self, call: &Call, turn_id: &str, wait_ms: Option<i64>) -> Result<Answer> {
        let session_id = call.part(0);
        if let Some(wait_ms) = wait_ms {
            return self.waited(call, turn_id, wait_ms);
        }
        let status = self.ledger.read(|db| turn::get(db, session_id, turn_id))?.status;
        let accepted = json!({"session_id": session_id, "turn_id": turn_id, "status": status});
        Ok(json(200, to_json(&accepted)))
    }

    /// The finished turn; 202 with the turn as it is when the time runs out.
    fn waited(&self, call: &Call, turn_id: &str, wait_ms: i64) -> Result<Answer> {
        let record = self.wait_for_turn(call, turn_id, wait_ms)?;
        let status = if record.is_terminal() { 200 } else { 202 };
        if call.accepts("text/plain") {
            check_answered(&record)?;
            let text = record.assistant_text.unwrap_or_default();
            return Ok(Answer::Whole(Response::text(status, text)));
        }
        Ok(json(status, to_json(&record)))
    }

    /// Waits on the session's log, not on the turn: it wakes for each of its events and looks.
    fn wait_for_turn(&self, call: &Call, turn_id: &str, wait_ms: i64) -> Result<TurnRecord> {
        let session_id = call.part(0);
        let wait = Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0));
        let tail = self.ledger.tail();
        let is_over = || -> Result<bool> {
            Ok(tail.is_closing()
                || self.ledger.read(|db| turn::is_over(db, session_id, turn_id))?)
        };
        if wait_ms > 0 && !is_over()? {
            let scope_key =
                self.ledger.read(|db| Ok(event::scope_key(db, ScopeKind::Session, session_id)?))?;
            let watch = tail.watch(Some(scope_key));
            wait::in_pieces(call, wait, |at_most| {
                let until = Instant::now() + at_most;
                loop {
                    let row_id = tail.newest_row_id();
                    let left = until.saturating_duration_since(Instant::now());
                    let is_over = is_over()?;
                    if is_over || left.is_zero() {
                        return Ok(((), is_over));
                    }
                    watch.wait(row_id, left);
                }
            })?;
        }
        self.ledger.read(|db| turn::get(db, session_id, turn_id))
    }

    /// The checked input of a turn. Errors name the item.
    pub(super) fn input(&self, items: &[Value]) -> Result<Vec<Input>> {
        if items.is_empty() {
            return Ok(vec![Input::Text { text: "Go on.".to_owned() }]);
        }
        input::checked(items, self.config.image_bytes_max)
    }
}
