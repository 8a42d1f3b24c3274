//! Locks that can be model-checked.
//!
//! Owns: a choice. The small cores that threads hand things over in (`ledger::answer`, `ledger::cache`,
//! `ledger::tail`, `keeper::outbox`) take their locks from here: the standard library's in every build of ours, and
//! loom's where `tests/loom` compiles the same files to try every order in which their threads can run. It deliberately
//! has no channel: those of crossbeam are tested by their authors.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::AtomicBool;
#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::AtomicBool;
#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
