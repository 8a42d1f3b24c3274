//! One attempt to bring mail to a session: claim it, bring it, write down what came of it.
//!
//! Runs on the threads of two lanes: sessions whose agent lives are served in the one, those whose agent has to be
//! woken first in the other, so that a slow start holds up nobody else. Where an agent is to be woken, the claim is
//! committed before, so that everybody sees what takes so long; a session whose agent lives answers at once, and its
//! claim is made in the transaction of the turn, which saves a commit for each message. Either way the session writes
//! `injected` down together with the turn. So a claim that is found without an attempt is one that reached nobody,
//! and an answer that comes too late, or for mail that was taken back meanwhile, undoes itself.

use super::letter;
use super::shared::Shared;
use crate::error::{Code, Error, Result};
use crate::ledger::Tx;
use crate::ledger::team::delivery::{Attempts, Move};
use crate::ledger::team::{message, recipient};
use crate::model::input::Input;
use crate::model::team::{DeferredReason, DeliveryStatus, InjectionStrategy};
use crate::session::input::check_supported;
use crate::session::{Mail, Way};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// What the dispatcher wants brought.
#[derive(Debug)]
pub(super) struct Job {
    pub recipient: String,
    /// Deliveries from the front of the queue, in order.
    pub deliveries: Vec<i64>,
    pub way: Way,
    pub is_agent_needed: bool,
    /// The recipient's agent lives, as the dispatcher saw it.
    pub is_live: bool,
    pub trigger: &'static str,
}

/// How an attempt ended, for the dispatcher.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Whatever there is to know is in the ledger: look at once.
    Settled,
    /// The session was not as the plan thought: look again in a moment.
    NotNow,
    /// The ledger could not be written.
    Unwritten,
}

/// A delivery, and the number of the claim on it where that is made before the session is asked.
type Claim = (i64, Option<i64>);

pub(super) fn attempt(shared: &Shared, job: &Job) -> Outcome {
    let is_claimed = !job.is_live;
    let claims = match is_claimed.then(|| claim(shared, job)).transpose() {
        Ok(Some(claims)) => claims,
        Ok(None) => job.deliveries.iter().map(|delivery_key| (*delivery_key, None)).collect(),
        Err(error) => {
            log::error!("mail for session {} can not be claimed: {error}", job.recipient);
            return Outcome::Unwritten;
        }
    };
    if claims.is_empty() {
        return Outcome::Settled;
    }
    let bringing = AssertUnwindSafe(|| bring(shared, job, &claims));
    let brought = std::panic::catch_unwind(bringing)
        .unwrap_or_else(|_| Err(Error::internal("a defect of the server ended the attempt")));
    let failure = match brought {
        Ok(true) => return Outcome::Settled,
        // As before, for there is nothing to take back.
        Ok(false) if !is_claimed => return Outcome::NotNow,
        Err(error) if !is_claimed && error.code == Code::Conflict => return Outcome::NotNow,
        Ok(false) => None,
        Err(error) => Some(error),
    };
    let is_not_now = failure.is_none();
    match settle(shared, job, claims, failure) {
        Ok(()) if is_not_now => Outcome::NotNow,
        Ok(()) => Outcome::Settled,
        Err(error) => {
            log::error!("what came of mail for session {} is lost: {error}", job.recipient);
            Outcome::Unwritten
        }
    }
}

fn claim(shared: &Shared, job: &Job) -> Result<Vec<Claim>> {
    let (deliveries, trigger) = (job.deliveries.clone(), job.trigger);
    shared.ledger.write(move |tx| {
        let mut claims = Vec::new();
        for delivery_key in deliveries.iter().copied() {
            // One that was cancelled meanwhile stays out.
            if let Some(claim) = tx.claim_delivery(delivery_key, trigger)? {
                claims.push((delivery_key, Some(claim)));
            }
        }
        Ok(claims)
    })
}

/// Brings what was claimed; false when the session does not take it now.
fn bring(shared: &Shared, job: &Job, claims: &[Claim]) -> Result<bool> {
    let (letters, capabilities) = shared.ledger.read(|db| {
        let letters: Result<Vec<message::Letter>> =
            claims.iter().map(|(delivery_key, _)| message::letter(db, *delivery_key)).collect();
        let recipient = recipient::get(db, &job.recipient)?;
        Ok((letters?, recipient.and_then(|recipient| recipient.capabilities)))
    })?;
    let mut input = Vec::new();
    let mut carried: Vec<Claim> = Vec::new();
    let mut refused: Vec<(i64, String)> = Vec::new();
    for (claim, letter) in claims.iter().zip(&letters) {
        let items = letter::items(letter)?;
        match check_supported(&items, capabilities.as_deref()) {
            Ok(()) => {
                input.extend(items);
                carried.push(*claim);
            }
            Err(error) => refused.push((claim.0, error.message)),
        }
    }
    if !refused.is_empty() {
        shared.ledger.write(move |tx| refuse(tx, &refused))?;
    }
    if carried.is_empty() {
        return Ok(true);
    }
    Ok(shared.sessions.carry(&job.recipient, mail(job, input, carried))?.is_some())
}

/// Deliveries that hold what the recipient's agent does not take.
fn refuse(tx: &mut Tx<'_>, refused: &[(i64, String)]) -> Result<()> {
    for (delivery_key, message) in refused {
        let error = Some((Code::UnsupportedInput.as_str(), message.as_str()));
        let failing = Move { error, attempts: Attempts::Count, ..Move::to(DeliveryStatus::Failed) };
        tx.move_delivery(*delivery_key, &failing)?;
    }
    Ok(())
}

fn mail(job: &Job, input: Vec<Input>, carried: Vec<Claim>) -> Mail {
    let trigger = job.trigger;
    let strategy = match job.way {
        Way::Steer { .. } => InjectionStrategy::SteerTurn,
        Way::NewTurn | Way::Interrupt { .. } => InjectionStrategy::SendTurn,
    };
    let deliveries = carried.iter().map(|(delivery_key, _)| *delivery_key).collect();
    let unclaimed: Vec<i64> =
        carried.iter().filter(|(_, claim)| claim.is_none()).map(|(key, _)| *key).collect();
    let claim = move |tx: &mut Tx<'_>| {
        for delivery_key in unclaimed.iter().copied() {
            tx.claim_delivery(delivery_key, trigger)?.ok_or_else(taken_back)?;
        }
        Ok(())
    };
    let accept = move |tx: &mut Tx<'_>, turn_id: &str| {
        for (delivery_key, claim) in carried.iter().copied() {
            let injecting = Move {
                turn: Some((turn_id, strategy)),
                attempts: Attempts::Count,
                claim,
                trigger: Some(trigger),
                ..Move::to(DeliveryStatus::Injected)
            };
            if !tx.move_delivery(delivery_key, &injecting)? {
                return Err(taken_back());
            }
        }
        Ok(())
    };
    let (claim, accept) = (Box::new(claim), Box::new(accept));
    let (way, is_agent_needed) = (job.way.clone(), job.is_agent_needed);
    Mail { input, way, deliveries, is_agent_needed, claim, accept }
}

fn taken_back() -> Error {
    Error::new(Code::Conflict, "mail was taken back while it was brought")
}

/// Writes down that an attempt did not succeed, and what follows from it.
fn settle(shared: &Shared, job: &Job, claims: Vec<Claim>, failure: Option<Error>) -> Result<()> {
    let (attempts_max, pause) = (shared.config.teams.attempts_max, shared.config.teams.retry_pause);
    let trigger = job.trigger;
    let failure = failure.map(|error| (error.code, error.message));
    shared.ledger.write(move |tx| {
        for (delivery_key, claim) in claims.iter().copied() {
            let attempts = tx.delivery_attempts(delivery_key)? + 1;
            let mut change = match &failure {
                None => Move::to(DeliveryStatus::Deferred),
                Some((Code::ShuttingDown, _)) => Move {
                    reason: Some(DeferredReason::CutOff),
                    ..Move::to(DeliveryStatus::Deferred)
                },
                Some((code @ (Code::SessionClosed | Code::NotFound), message)) => {
                    let code = match code {
                        Code::NotFound => "recipient_session_not_found",
                        _ => "recipient_session_closed",
                    };
                    Move { error: Some((code, message)), ..failed() }
                }
                Some((code, message)) if attempts >= attempts_max => {
                    Move { error: Some((code.as_str(), message)), ..failed() }
                }
                Some((code, message)) => Move {
                    reason: Some(DeferredReason::Retry),
                    error: Some((code.as_str(), message)),
                    next_attempt_at: Some(tx.now_ms() + pause_ms(pause, attempts)),
                    attempts: Attempts::Count,
                    ..Move::to(DeliveryStatus::Deferred)
                },
            };
            change.claim = claim;
            change.trigger = Some(trigger);
            tx.move_delivery(delivery_key, &change)?;
        }
        Ok(())
    })
}

fn failed() -> Move<'static> {
    Move { attempts: Attempts::Count, ..Move::to(DeliveryStatus::Failed) }
}

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The same, when the first pause is this long.
pub(super) fn longest_pause(first: Duration) -> Duration {
    PAUSE_MAX.max(first)
}

/// Twice as long after each attempt.
fn pause_ms(first: Duration, attempts: i64) -> i64 {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(16);
    let pause = first.saturating_mul(1 << doublings).min(longest_pause(first));
    i64::try_from(pause.as_millis()).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_a_minute() {
        let second = Duration::from_secs(1);
        let pauses: Vec<i64> = (1..=8).map(|attempts| pause_ms(second, attempts)).collect();
        assert_eq!(pauses, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(pause_ms(Duration::from_secs(90), 3), 90_000);
    }
}
