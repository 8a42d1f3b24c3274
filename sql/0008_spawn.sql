-- Spawning: the journal of what makes a member and of what ends one. A row is committed before anything is made, and
-- says at each moment what there is to complete or to undo. The stages and who changes them: docs/ARCHITECTURE.md,
-- "Spawning".

-- The operation that has made this member; its session ends when it leaves. NULL = a session that joined.
ALTER TABLE team_member ADD COLUMN operation_id TEXT;

CREATE TABLE team_operation (
    operation_key   INTEGER PRIMARY KEY,
    operation_id    TEXT NOT NULL UNIQUE,
    team_key        INTEGER NOT NULL REFERENCES team ON DELETE CASCADE,
    kind            TEXT NOT NULL CHECK (kind IN ('spawn_member_with_worktree', 'remove_spawned_member')),
    stage           TEXT NOT NULL CHECK (stage IN ('planned', 'session_created', 'rolling_back', 'member_left', 'completed', 'rolled_back')),
    -- On whose behalf a member is made. NULL = a removal.
    source_session_id TEXT,
    -- The member. No reference: its session may be purged. NULL until it is made.
    session_id      TEXT,
    -- Where it works. NULL = in no worktree, or not made yet.
    worktree_id     TEXT,
    worktree_assignment_mode TEXT NOT NULL CHECK (worktree_assignment_mode IN ('created', 'reused', 'none')),
    -- The onboarding. NULL until it is sent.
    message_id      TEXT,
    -- What was asked for, an object, as clients see it.
    request         TEXT NOT NULL,
    -- What the member is made of once its agent is open: title, prompt, images with their bytes. NULL = not needed
    -- (any more).
    enrolment       TEXT,
    -- Why it is undone. NULL = it is not.
    reason          TEXT,
    message         TEXT,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    -- NULL = it goes on, by this server or by the next one.
    finished_at     INTEGER
) STRICT;
CREATE INDEX team_operation_by_team ON team_operation (team_key, operation_key);
-- What a start takes up, and how many are under way.
CREATE INDEX team_operation_unfinished ON team_operation (operation_key) WHERE finished_at IS NULL;
-- Whether the end of a session leaves its worktree to an operation.
CREATE INDEX team_operation_by_session ON team_operation (session_id) WHERE finished_at IS NULL;

-- What went wrong in an operation, for people.
CREATE TABLE team_operation_diagnostic (
    diagnostic_key  INTEGER PRIMARY KEY,
    operation_key   INTEGER NOT NULL REFERENCES team_operation ON DELETE CASCADE,
    code            TEXT NOT NULL,
    message         TEXT NOT NULL,
    -- An object.
    payload         TEXT NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX team_operation_diagnostic_by_operation ON team_operation_diagnostic (operation_key, diagnostic_key);
