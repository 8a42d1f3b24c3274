//! The words that a session's thread is sent, and the answers to them.

use super::actor::{Decision, TurnRequest};
use super::capacity::Reservation;
use super::mail::Mail;
use crate::error::{Code, Error, Result};
use crossbeam_channel::Sender;

/// What others tell a session's thread. Each is answered on its own channel.
pub(super) enum Command {
    /// Start the agent now and say when it is ready; a session that is live already is ready.
    Open {
        reservation: Option<Reservation>,
        answer: Answer<()>,
    },
    StartTurn {
        request: Box<TurnRequest>,
        reservation: Option<Reservation>,
        answer: Answer<String>,
    },
    /// Take mail into a turn; answers with the turn, or None when the session is not as the mail wants it.
    Carry {
        mail: Box<Mail>,
        reservation: Option<Reservation>,
        answer: Answer<Option<String>>,
    },
    Interrupt {
        turn_id: String,
        answer: Answer<()>,
    },
    Decide {
        approval_id: String,
        decision: Decision,
        reservation: Option<Reservation>,
        answer: Answer<()>,
    },
    Close {
        reason: String,
        answer: Answer<()>,
    },
    /// The session is over: say when the agent's process tree is gone.
    AwaitEnd {
        answer: Answer<()>,
    },
    /// Put the agent to sleep if it is idle; answers whether it sleeps.
    Sleep {
        answer: Answer<bool>,
    },
    /// The agent was started with what does not hold any more: start it anew before its next turn.
    Renew,
    /// The server stops: leave a busy agent to its keeper, put an idle one to sleep, or end it when `is_final`.
    Shutdown {
        is_final: bool,
    },
}

pub(super) type Answer<T> = Sender<Result<T>>;

impl Command {
    /// Tells whoever has sent it that its session can not be read now.
    pub(super) fn refuse(self) {
        fn tell<T>(answer: &Answer<T>) {
            let error = Error::new(Code::Capacity, "the session can not be read now");
            drop(answer.send(Err(error.hint("try again; the log of the server says why"))));
        }
        match self {
            Command::Open { answer, .. }
            | Command::Interrupt { answer, .. }
            | Command::Decide { answer, .. }
            | Command::Close { answer, .. }
            | Command::AwaitEnd { answer } => tell(&answer),
            Command::StartTurn { answer, .. } => tell(&answer),
            Command::Carry { answer, .. } => tell(&answer),
            Command::Sleep { answer } => tell(&answer),
            Command::Renew | Command::Shutdown { .. } => {}
        }
    }
}
