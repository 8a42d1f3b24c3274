-- Git worktrees that this server has made, and which sessions work in them.

CREATE TABLE worktree (
    worktree_key    INTEGER PRIMARY KEY,
    worktree_id     TEXT NOT NULL UNIQUE,
    -- `creating` and `removing` are intents: committed before git is asked, taken up by the next start after a crash.
    status          TEXT NOT NULL CHECK (status IN ('creating', 'ready', 'missing', 'removing', 'deleted')),
    -- What the start found to be wrong with it; NULL = nothing.
    problem         TEXT,
    -- The repository: the folder that people work in, and git's own folder, which all its worktrees share.
    repo_root       TEXT NOT NULL,
    common_dir      TEXT NOT NULL,
    unified_workspace_path TEXT NOT NULL,
    worktree_root   TEXT NOT NULL,
    worktree_cwd    TEXT NOT NULL,
    worktree_name   TEXT NOT NULL,
    branch_name     TEXT NOT NULL,
    -- Where the branch began. An unfinished creation is only undone while the branch is still there.
    base_commit     TEXT NOT NULL,
    -- The same by name, for ahead and behind. NULL = it began at a commit that had none.
    base_ref        TEXT,
    deletion_policy TEXT NOT NULL CHECK (deletion_policy IN ('delete_on_last_claim', 'retain_on_last_claim')),
    -- NULL while it is being made.
    init_script_status TEXT,
    -- A cleanup that is due or under way, and whether it was to be forced. NULL = none.
    cleanup_reason  TEXT,
    cleanup_force   INTEGER NOT NULL DEFAULT 0 CHECK (cleanup_force IN (0, 1)),
    -- The ref that holds what a forced cleanup has taken away. NULL = there was nothing to hold.
    backup_ref      TEXT,
    created_by_session_id   TEXT,
    created_by_operation_id TEXT,
    team_id         TEXT,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    deleted_at      INTEGER
) STRICT;
-- One living worktree in a folder and on a branch: the rule itself, not only a check before it.
CREATE UNIQUE INDEX worktree_folder ON worktree (worktree_cwd) WHERE status <> 'deleted';
CREATE UNIQUE INDEX worktree_branch ON worktree (common_dir, branch_name) WHERE status <> 'deleted';
-- What the cleaning thread has to do.
CREATE INDEX worktree_due ON worktree (worktree_key) WHERE cleanup_reason IS NOT NULL;

CREATE TABLE worktree_claim (
    worktree_key    INTEGER NOT NULL REFERENCES worktree,
    -- Not a reference: the claim is history also when its session is purged.
    session_id      TEXT NOT NULL,
    claim_role      TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    -- NULL = the session works there.
    released_at     INTEGER,
    PRIMARY KEY (worktree_key, session_id)
) STRICT, WITHOUT ROWID;
-- A session works in one worktree at a time.
CREATE UNIQUE INDEX worktree_claim_active ON worktree_claim (session_id) WHERE released_at IS NULL;
