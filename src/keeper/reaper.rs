//! The keeper processes that this server has started and not yet reaped.
//!
//! Owns: the list. A keeper may outlive the handle that started it (detach), and be attached to by
//! another handle of the same server later, so its `Child` belongs to the process and not to a
//! handle. No thread runs here: whoever hears of an end reaps that one, and each spawn reaps what
//! ended unheard, so zombies never outnumber the children that ended between two spawns. The lock
//! is held over `try_wait`, which does not block, and over nothing else.

use std::process::Child;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use gg_keeper::tree;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How long the end of a keeper may take after its socket has closed.
const END_WAIT: Duration = Duration::from_secs(5);

static KEEPERS: Mutex<Vec<(String, Child)>> = Mutex::new(Vec::new());

/// Puts the keeper of this child on the list.
pub(super) fn add(child_id: &str, keeper: Child) {
    lock().push((child_id.to_string(), keeper));
}

/// Waits for the keeper of this child, which is about to end, and reaps it if it is ours. One that
/// does not end in time stays on the list.
pub(super) fn reap(child_id: &str) {
    let pid = lock().iter().find(|(kept, _)| kept == child_id).map(|(_, keeper)| keeper.id());
    // It is our child and not reaped, so the pid is its own.
    if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.cast_signed()))
        && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
    {
        tree::wait_readable(&pidfd, Instant::now() + END_WAIT);
    }
    reap_ended();
}

/// Reaps every keeper that has ended.
pub(super) fn reap_ended() {
    // An error says that there is nothing to wait for any more.
    lock().retain_mut(|(_, keeper)| matches!(keeper.try_wait(), Ok(None)));
}

fn lock() -> MutexGuard<'static, Vec<(String, Child)>> {
    KEEPERS.lock().expect("nothing panics under this lock")
}
