//! Calls that go on over deaths of the server.
//!
//! Owns: who the server is now, and how often it has died. A client that was promised something can not know whether
//! an answer that did not come means that nothing happened; it asks again, with the same `Idempotency-Key` where the
//! route takes one. So does this one, and it tells its caller that the answer was lost before. An error while the
//! server lives is a fault of the server, and a panic here.

use gooselake_harness::client::{Client, Headers, Reply};
use gooselake_harness::stream::Stream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a server may be away: it is started again after every death.
const AWAY: Duration = Duration::from_secs(90);

/// How long one call may take: the longest wait that is asked for, and a busy machine.
const CALL: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    client: Option<Client>,
    deaths: u64,
    is_over: bool,
}

/// An answer, and whether an earlier one to the same call may have been lost.
pub(crate) struct Answered {
    pub(crate) reply: Reply,
    pub(crate) was_cut: bool,
}

impl Line {
    /// The server listens.
    pub(crate) fn up(&self, client: Client) {
        self.lock().client = Some(client.with_deadline(CALL));
        self.changed.notify_all();
    }

    /// The server is about to die: said before it does, so that no error comes unexplained.
    pub(crate) fn down(&self) {
        let mut state = self.lock();
        state.client = None;
        state.deaths += 1;
    }

    /// No server will come any more.
    pub(crate) fn over(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    /// Who the server is, with the number of deaths so far; waits for one. None: there will be none.
    pub(crate) fn server(&self) -> Option<(Client, u64)> {
        let state = self.lock();
        let is_away = |state: &mut State| state.client.is_none() && !state.is_over;
        let waited = self.changed.wait_timeout_while(state, AWAY, is_away);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "awaited a server for {AWAY:?}");
        state.client.clone().map(|client| (client, state.deaths))
    }

    /// Whether the server has died since there were so many deaths.
    pub(crate) fn has_died(&self, deaths: u64) -> bool {
        self.lock().deaths > deaths
    }

    /// Makes a call until it is answered.
    pub(crate) fn call(&self, method: &str, path: &str, headers: Headers, body: &[u8]) -> Answered {
        let mut was_cut = false;
        loop {
            match self.call_once(method, path, headers, body) {
                Some(reply) => return Answered { reply, was_cut },
                None => was_cut = true,
            }
        }
    }

    /// Makes a call once. None: the server died, and nobody knows whether it was carried out.
    pub(crate) fn call_once(
        &self,
        method: &str,
        path: &str,
        headers: Headers,
        body: &[u8],
    ) -> Option<Reply> {
        let (client, deaths) = self.server().expect("plays end before the server does");
        match client.try_request(method, path, headers, body) {
            // A server that is told to go says so; whether it had begun is not known either.
            Ok(reply) if reply.status == 503 && reply.json()["code"] == "shutting_down" => {
                assert!(self.has_died(deaths), "nobody told it to go: {reply}");
                None
            }
            Ok(reply) => Some(reply),
            Err(error) => {
                assert!(self.has_died(deaths), "{method} {path}: the server lives, but {error}");
                None
            }
        }
    }

    /// Opens a stream; None when there will be no server any more.
    pub(crate) fn stream(&self, path: &str, last: &str) -> Option<(Stream, u64)> {
        loop {
            let (client, deaths) = self.server()?;
            match client.try_stream(path, &[("Last-Event-ID", last)]) {
                Ok(Ok(stream)) => return Some((stream, deaths)),
                Ok(Err(reply)) => {
                    let is_going = reply.json()["code"] == "shutting_down";
                    assert!(is_going && self.has_died(deaths), "no stream: {reply}");
                }
                Err(error) => {
                    assert!(self.has_died(deaths), "{path}: the server lives, but {error}");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
