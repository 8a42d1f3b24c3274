//! Who has a thread: the table behind the lock of [`super::Shared`].
//!
//! Owns: the handle of each session's thread, from its start until the thread takes itself out. A session has one
//! thread at a time that is sent commands; one that has taken itself out may still be about to end when the next one is
//! there already, and must not touch what is that one's. Nothing here waits.

use super::command::Command;
use crate::thread::Thread;
use crossbeam_channel::{Receiver, Sender};
use std::collections::HashMap;

#[derive(Default)]
pub(super) struct Registry {
    pub(super) live: HashMap<String, Handle>,
    /// Threads that have taken themselves out and are about to end; joined by whoever comes next.
    pub(super) retired: Vec<Thread>,
}

pub(super) struct Handle {
    /// In boxes, so that an inbox with nothing in it weighs little: each live session has one.
    pub(super) commands: Sender<Box<Command>>,
    pub(super) thread: Option<Thread>,
}

impl Registry {
    /// Takes the calling thread out, unless somebody has sent it something. One that is out already stays out, and
    /// whoever has its place keeps it.
    pub(super) fn retire(&mut self, session_id: &str, inbox: &Receiver<Box<Command>>) -> bool {
        if !inbox.is_empty() {
            return false;
        }
        let is_own = |handle: &mut Handle| handle.thread.as_ref().is_some_and(Thread::is_current);
        if self.live.get_mut(session_id).is_some_and(is_own)
            && let Some(thread) = self.live.remove(session_id).and_then(|handle| handle.thread)
        {
            self.retired.push(thread);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread;
    use std::sync::{Arc, Mutex};

    type Inbox = Receiver<Box<Command>>;

    /// Starts a thread for the session, which gets its inbox.
    fn start(registry: &Mutex<Registry>, body: impl FnOnce(&Inbox) + Send + 'static) {
        let (commands, inbox) = crossbeam_channel::bounded(1);
        let mut registry = registry.lock().unwrap();
        let thread = thread::spawn("session", move || body(&inbox)).unwrap();
        registry.live.insert("one".to_owned(), Handle { commands, thread: Some(thread) });
    }

    #[test]
    fn a_thread_that_is_out_leaves_its_place_to_the_next_one() {
        let registry = Arc::new(Mutex::new(Registry::default()));
        let (told, steps) = crossbeam_channel::bounded(1);
        let (go, goes) = crossbeam_channel::bounded::<()>(0);
        let shared = Arc::clone(&registry);
        start(&registry, move |inbox| {
            for _ in 0..2 {
                let is_out = shared.lock().unwrap().retire("one", inbox);
                told.send(is_out).unwrap();
                let _end = goes.recv();
            }
        });
        assert_eq!(steps.recv(), Ok(true));
        assert!(registry.lock().unwrap().live.is_empty());
        // A command comes, and with it another thread, before the first one has ended.
        let (heard, hears) = crossbeam_channel::bounded(1);
        start(&registry, move |inbox| heard.send(inbox.recv().is_ok()).unwrap());
        go.send(()).unwrap();
        assert_eq!(steps.recv(), Ok(true));
        let handle =
            registry.lock().unwrap().live.remove("one").expect("the next one has its place");
        handle.commands.send(Box::new(Command::Renew)).unwrap();
        assert_eq!(hears.recv(), Ok(true));
        drop(go);
    }

    #[test]
    fn a_thread_that_was_sent_something_stays() {
        let registry = Arc::new(Mutex::new(Registry::default()));
        let (told, steps) = crossbeam_channel::bounded(2);
        let (go, goes) = crossbeam_channel::bounded::<()>(0);
        let shared = Arc::clone(&registry);
        start(&registry, move |inbox| {
            let _go = goes.recv();
            told.send(shared.lock().unwrap().retire("one", inbox)).unwrap();
            drop(inbox.recv());
            told.send(shared.lock().unwrap().retire("one", inbox)).unwrap();
        });
        let commands = registry.lock().unwrap().live["one"].commands.clone();
        commands.send(Box::new(Command::Renew)).unwrap();
        drop(go);
        assert_eq!([steps.recv(), steps.recv()], [Ok(false), Ok(true)]);
        assert_eq!(registry.lock().unwrap().retired.len(), 1);
    }
}
