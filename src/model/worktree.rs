//! The words of worktrees: what one is, what becomes of it, and how a cleanup ended.

use super::words;

words! {
    /// What a worktree is, as clients see it.
    WorktreeStatus {
        /// Written down, and git or its init script is at work; a server that starts finds and undoes it.
        Creating = "creating",
        Ready = "ready",
        /// Its folder went away without us; comes back as `ready` when the folder does.
        Missing = "missing",
        /// A cleanup has begun; a server that starts finishes it.
        Removing = "removing",
        Deleted = "deleted",
    }
}

words! {
    /// What happens when nobody claims a worktree any more.
    DeletionPolicy {
        DeleteOnLastClaim = "delete_on_last_claim",
        RetainOnLastClaim = "retain_on_last_claim",
    }
}

words! {
    /// How a cleanup ended.
    CleanupStatus {
        Deleted = "deleted",
        CleanupFailed = "cleanup_failed",
        SkippedLiveClaims = "skipped_live_claims",
        RetainedByPolicy = "retained_by_policy",
        /// It holds work that is in no commit.
        KeptDirty = "kept_dirty",
        /// It holds commits that no other ref holds.
        KeptUnmerged = "kept_unmerged",
    }
}

words! {
    /// What became of the init script of a new worktree.
    InitScriptStatus {
        Succeeded = "succeeded",
        SkippedMissing = "skipped_missing",
        SkippedDisabled = "skipped_disabled",
        /// The worktree was there already.
        SkippedExisting = "skipped_existing",
    }
}
