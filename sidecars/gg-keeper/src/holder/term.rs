//! TERM to the tree: who was told, and who has to be told later.
//!
//! Owns: the list of those who were told. A process that is forked between the look at the tree and the signal is
//! missed. In the child's own group nobody is: the kernel gives a signal of a group to what is being forked, too. What
//! is missed outside of it, and what a handler of TERM leaves behind, comes to the keeper when its parent dies, and is
//! told then. Whoever has a parent that was told is left alone: it may be what that parent cleans up with.

use gg_keeper::tree::Process;
use rustix::process::{Pid, Signal, getpid, kill_process_group};

use super::own_tree;

/// How often deaths are followed by another look. A tree that heeds no TERM and goes on forking is KILLed soon.
const LOOKS_MAX: usize = 1000;

/// The TERM of one end.
#[derive(Debug, Default)]
pub(super) struct Term {
    told: Vec<Process>,
    looks: usize,
}

impl Term {
    /// Tells all that lives below the keeper. `group` is the child's, while the child is not reaped: its number is
    /// given to nobody else before that.
    pub(super) fn tell(&mut self, group: Option<Pid>) {
        self.told = own_tree();
        let group = group.filter(|group| kill_process_group(*group, Signal::TERM).is_ok());
        let group = group.map(|group| group.as_raw_nonzero().get());
        for process in &self.told {
            // One that has left the group meanwhile may have missed that.
            let seen = Process::look(process.pid).ok().flatten().map(|seen| seen.group);
            if group.is_none() || seen != group {
                drop(process.signal(Signal::TERM));
            }
        }
    }

    /// After a death: tells those that it has handed over to the keeper, and what lives below them, each once.
    pub(super) fn tell_orphans(&mut self) {
        if self.looks == LOOKS_MAX {
            return;
        }
        self.looks += 1;
        let mut parents = vec![getpid().as_raw_nonzero().get()];
        // A parent comes before its children.
        for process in own_tree() {
            let is_told =
                |told: &Process| (told.pid, told.started) == (process.pid, process.started);
            if parents.contains(&process.parent) && !self.told.iter().any(is_told) {
                drop(process.signal(Signal::TERM));
                parents.push(process.pid);
                self.told.push(process);
            }
        }
    }
}
