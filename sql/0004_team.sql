-- Teams: who is in one, what its members write to each other, and how far each letter has come.
--
-- Agents are sessions, named by their id and without a reference: a session may be purged, what was written stays.
-- A team that is deleted is only marked, so that its log and its mail can be read until it is purged.

CREATE TABLE team (
    team_key        INTEGER PRIMARY KEY,
    team_id         TEXT NOT NULL UNIQUE,
    name            TEXT NOT NULL,
    lead_agent_id   TEXT NOT NULL,
    -- Who asked for it, in the caller's own words.
    created_by      TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    -- NULL = it is there.
    deleted_at      INTEGER
) STRICT;

CREATE TABLE team_member (
    team_key        INTEGER NOT NULL REFERENCES team ON DELETE CASCADE,
    agent_id        TEXT NOT NULL,
    title           TEXT,
    joined_at       INTEGER NOT NULL,
    added_by        TEXT NOT NULL,
    creator_agent_id TEXT,
    creator_compaction_subscription TEXT NOT NULL,
    worktree_id     TEXT,
    PRIMARY KEY (team_key, agent_id)
) STRICT, WITHOUT ROWID;
-- The teams of a session.
CREATE INDEX team_member_by_agent ON team_member (agent_id);

CREATE TABLE team_message (
    message_key     INTEGER PRIMARY KEY,
    message_id      TEXT NOT NULL UNIQUE,
    team_key        INTEGER NOT NULL REFERENCES team ON DELETE CASCADE,
    scope           TEXT NOT NULL CHECK (scope IN ('direct', 'broadcast')),
    sender_agent_id TEXT NOT NULL,
    -- Arrays, as the sender gave them.
    recipient_agent_ids TEXT NOT NULL,
    input           TEXT NOT NULL,
    image_paths     TEXT NOT NULL,
    -- The checked input (src/model/input.rs), images with their bytes: the files may be gone when it is delivered.
    content         TEXT NOT NULL,
    priority        TEXT NOT NULL CHECK (priority IN ('high', 'normal', 'low')),
    policy          TEXT NOT NULL CHECK (policy IN ('non_interrupting', 'start_new_turn_only', 'interrupt_after_tool_boundary', 'immediate_interrupt')),
    correlation_id  TEXT,
    reply_to_message_id TEXT,
    -- NULL = the sender gave none. The hash finds out another message under the same key.
    idempotency_key TEXT,
    body_hash       INTEGER NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX team_message_by_team ON team_message (team_key, message_key);
-- One message for a sender's key, for ever.
CREATE UNIQUE INDEX team_message_by_idempotency_key
    ON team_message (team_key, sender_agent_id, scope, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- One message on its way to one recipient. The states and who may change them: docs/ARCHITECTURE.md, "Team mail".
CREATE TABLE team_delivery (
    delivery_key    INTEGER PRIMARY KEY,
    delivery_id     TEXT NOT NULL UNIQUE,
    message_key     INTEGER NOT NULL REFERENCES team_message ON DELETE CASCADE,
    team_key        INTEGER NOT NULL REFERENCES team ON DELETE CASCADE,
    recipient_agent_id TEXT NOT NULL,
    -- The recipient's provider when the message was written; NULL = there was no such session any more.
    provider        TEXT,
    status          TEXT NOT NULL CHECK (status IN ('pending', 'deferred', 'injecting', 'injected', 'failed', 'cancelled')),
    -- The message's priority as a number, 0 first: the queue of a recipient is ordered by it, then by the key.
    rank            INTEGER NOT NULL CHECK (rank IN (0, 1, 2)),
    policy          TEXT NOT NULL,
    -- Why it waited last; NULL = it never had to.
    deferred_reason TEXT,
    injection_strategy TEXT CHECK (injection_strategy IN ('runtime_send_turn', 'runtime_steer_turn')),
    -- The turn that carries it.
    injected_turn_id TEXT,
    last_error_code TEXT,
    last_error_message TEXT,
    -- Attempts that came to an end, good or bad, since it was created or asked for again.
    attempts        INTEGER NOT NULL DEFAULT 0,
    -- NULL = whenever its turn comes.
    next_attempt_at INTEGER,
    -- Counts the claims by attempts: what a late answer belongs to.
    claim           INTEGER NOT NULL DEFAULT 0,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL
) STRICT;
-- The queue of a recipient, over all its teams.
CREATE INDEX team_delivery_waiting ON team_delivery (recipient_agent_id, rank, delivery_key)
    WHERE status IN ('pending', 'deferred', 'injecting');
CREATE INDEX team_delivery_by_message ON team_delivery (message_key, delivery_key);
CREATE INDEX team_delivery_by_team ON team_delivery (team_key, delivery_key);
-- What a turn carries: its rank.
CREATE INDEX team_delivery_by_turn ON team_delivery (injected_turn_id) WHERE injected_turn_id IS NOT NULL;
