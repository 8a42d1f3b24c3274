-- The first schema: the event log, and the records whose changes it tells.
--
-- Words in CHECKs are those of src/model.rs. Times are milliseconds since the epoch. JSON is TEXT, written by us alone.
-- A `…_key` is an integer for joins inside the database; a `…_id` is the name that clients know.

-- What must survive although every row that shows it may be purged. Exactly one row.
CREATE TABLE ledger (
    ledger_key      INTEGER PRIMARY KEY CHECK (ledger_key = 1),
    -- Event row ids up to here have been given out, so none is given twice after a purge of the newest rows.
    row_id_floor    INTEGER NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT;
INSERT INTO ledger VALUES (1, 0, CAST(unixepoch('subsec') * 1000 AS INTEGER));

-- The logs: one for each session, team, process and worktree, and one for the system. An integer key instead of two
-- texts in every event row saves a quarter of the space and up to 40 % of the time of an append.
CREATE TABLE scope (
    scope_key       INTEGER PRIMARY KEY,
    kind            TEXT NOT NULL CHECK (kind IN ('session', 'team', 'process', 'worktree', 'system')),
    scope_id        TEXT NOT NULL,
    UNIQUE (kind, scope_id)
) STRICT;

CREATE TABLE event (
    row_id          INTEGER PRIMARY KEY,
    scope_key       INTEGER NOT NULL REFERENCES scope,
    -- Counts from 1 in each scope without a hole; deltas may be dropped later, the numbers stay.
    seq             INTEGER NOT NULL,
    kind            TEXT NOT NULL,
    droppable       INTEGER NOT NULL CHECK (droppable IN (0, 1)),
    -- NULL = none, or, in a session's or a team's own scope, the scope id itself.
    session_id      TEXT,
    team_id         TEXT,
    turn_id         TEXT,
    payload         TEXT NOT NULL,
    -- Set on what came from an agent: who, and the offset in its stdout after the line that told it.
    provider        TEXT,
    provider_seq    INTEGER,
    created_at      INTEGER NOT NULL
) STRICT;
-- Replay of one scope, and the guard against a number given twice.
CREATE UNIQUE INDEX event_by_scope ON event (scope_key, seq);

CREATE TABLE session (
    session_key     INTEGER PRIMARY KEY,
    session_id      TEXT NOT NULL UNIQUE,
    provider        TEXT NOT NULL,
    -- Which of the provider's agents; 'default' unless the client named one.
    agent           TEXT NOT NULL,
    -- What is not said by its turns: see the view below.
    state           TEXT NOT NULL CHECK (state IN ('starting', 'open', 'closed', 'failed')),
    title           TEXT,
    -- As the client gave it; NULL = the server's own folder, which is then in agent_cwd.
    cwd             TEXT,
    agent_cwd       TEXT NOT NULL,
    model           TEXT,
    mode            TEXT,
    reasoning_level TEXT,
    permission_mode TEXT,
    system_prompt   TEXT,
    metadata        TEXT NOT NULL,
    -- Environment for the agent (an object) and MCP servers (an array in ACP's shape). May hold secrets: never shown.
    env             TEXT NOT NULL,
    mcp_servers     TEXT NOT NULL,
    -- The agent's own name of the conversation. NULL until it has opened.
    provider_session_ref            TEXT,
    canonical_provider_session_ref  TEXT,
    -- What the agent said it can do (src/provider.rs, Capabilities). NULL until it has said so.
    capabilities    TEXT,
    worktree_id     TEXT,
    -- Totals over all turns; NULL while the agent has told nothing.
    usage           TEXT,
    last_error      TEXT,
    failure_code    TEXT,
    failure_message TEXT,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    closed_at       INTEGER
) STRICT;
-- The list, newest change first, in pages.
CREATE INDEX session_by_update ON session (updated_at, session_key);

CREATE TABLE turn (
    turn_key        INTEGER PRIMARY KEY,
    turn_id         TEXT NOT NULL UNIQUE,
    session_key     INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    status          TEXT NOT NULL CHECK (status IN ('queued', 'in_progress', 'waiting_for_approval', 'completed', 'interrupted', 'failed')),
    source          TEXT NOT NULL CHECK (source IN ('user', 'team', 'agent')),
    -- The checked input (src/model/input.rs).
    input           TEXT NOT NULL,
    -- Asked for from this turn on; NULL = as the session has it.
    model           TEXT,
    mode            TEXT,
    reasoning_level TEXT,
    permission_mode TEXT,
    -- The agent's own name of the turn, where it has one.
    provider_turn_ref TEXT,
    usage           TEXT,
    error           TEXT,
    stop_reason     TEXT,
    -- All that the assistant said in the turn, kept also when the turn fails.
    assistant_text  TEXT,
    -- NULL = nobody asked for an interrupt.
    interrupt_requested_at INTEGER,
    created_at      INTEGER NOT NULL,
    queued_at       INTEGER,
    started_at      INTEGER,
    -- When the prompt was committed for the agent's stdin. NULL = the agent has not been told of it.
    dispatched_at   INTEGER,
    completed_at    INTEGER
) STRICT;
-- One active turn a session: the rule itself, not only a check before it.
CREATE UNIQUE INDEX turn_active ON turn (session_key) WHERE status IN ('in_progress', 'waiting_for_approval');
-- The next of the queue.
CREATE INDEX turn_queued ON turn (session_key, turn_key) WHERE status = 'queued';
CREATE INDEX turn_by_session ON turn (session_key, turn_key);

CREATE TABLE item (
    item_key        INTEGER PRIMARY KEY,
    item_id         TEXT NOT NULL UNIQUE,
    session_key     INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    turn_key        INTEGER NOT NULL REFERENCES turn ON DELETE CASCADE,
    type            TEXT NOT NULL CHECK (type IN ('user_message', 'assistant_message', 'reasoning', 'command', 'file_change', 'tool_call', 'web_search', 'plan', 'image', 'notice', 'other')),
    status          TEXT NOT NULL CHECK (status IN ('in_progress', 'completed', 'failed', 'declined', 'interrupted')),
    -- The fields of the type, an object. Of an open item without what its deltas have added: that is in the log.
    body            TEXT NOT NULL,
    -- The seq of its item.started: where a restarted server begins to add up the deltas.
    started_seq     INTEGER NOT NULL,
    -- The adapter's own key while the item is open; NULL once it is done.
    adapter_key     TEXT,
    created_at      INTEGER NOT NULL,
    completed_at    INTEGER
) STRICT;
CREATE INDEX item_by_session ON item (session_key, item_key);
CREATE INDEX item_by_turn ON item (turn_key, item_key);
CREATE INDEX item_open ON item (session_key) WHERE status = 'in_progress';

CREATE TABLE approval (
    approval_key    INTEGER PRIMARY KEY,
    approval_id     TEXT NOT NULL UNIQUE,
    session_key     INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    turn_key        INTEGER NOT NULL REFERENCES turn ON DELETE CASCADE,
    origin          TEXT NOT NULL CHECK (origin IN ('gate', 'tool')),
    status          TEXT NOT NULL CHECK (status IN ('pending', 'accept', 'decline', 'expired', 'withdrawn')),
    title           TEXT NOT NULL,
    subject         TEXT NOT NULL,
    options         TEXT NOT NULL,
    -- The item it is about, if there is one.
    item_id         TEXT,
    -- The adapter's own key while the agent waits; NULL for a gate.
    adapter_key     TEXT,
    -- The option that was chosen, what it covers (once, session), who chose, and what else the answer said.
    decision        TEXT,
    decision_scope  TEXT CHECK (decision_scope IN ('once', 'session')),
    decided_by      TEXT,
    response        TEXT,
    withdrawn_reason TEXT,
    created_at      INTEGER NOT NULL,
    -- NULL = never.
    expires_at      INTEGER,
    resolved_at     INTEGER
) STRICT;
CREATE INDEX approval_by_session ON approval (session_key, approval_key);
CREATE INDEX approval_pending ON approval (session_key) WHERE status = 'pending';

-- The agent process that a session has now: no row, no process. What a restarted server needs to go on in the middle.
CREATE TABLE agent (
    session_key     INTEGER PRIMARY KEY REFERENCES session ON DELETE CASCADE,
    -- The folder of its keeper under <data>/keepers.
    child_id        TEXT NOT NULL UNIQUE,
    -- Journal offsets up to which everything is in this database.
    stdout_offset   INTEGER NOT NULL,
    stderr_offset   INTEGER NOT NULL,
    -- Where the next byte for stdin goes; what lies below is in the keeper's journal or in agent_stdin.
    stdin_offset    INTEGER NOT NULL,
    -- The adapter's own state (src/provider.rs, Adapter::snapshot).
    snapshot        TEXT NOT NULL,
    -- The end of the last turn or of the start: who sleeps first.
    idle_since      INTEGER NOT NULL,
    started_at      INTEGER NOT NULL
) STRICT;

-- Bytes for an agent's stdin that are decided (committed with the state that they belong to) and not yet known to be in
-- the keeper's journal. The offset makes sending them twice harmless: so a prompt is sent exactly once.
CREATE TABLE agent_stdin (
    session_key     INTEGER NOT NULL REFERENCES agent ON DELETE CASCADE,
    at_offset       INTEGER NOT NULL,
    bytes           BLOB NOT NULL,
    PRIMARY KEY (session_key, at_offset)
) STRICT, WITHOUT ROWID;

-- Commands that an agent runs through the client (ACP terminal/*): kept children, owned by the session.
CREATE TABLE terminal (
    terminal_id     TEXT PRIMARY KEY,
    session_key     INTEGER NOT NULL REFERENCES agent ON DELETE CASCADE,
    output_bytes_max INTEGER NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX terminal_by_session ON terminal (session_key);

-- What a POST with an Idempotency-Key has made, committed together with the thing itself.
CREATE TABLE idempotency (
    route           TEXT NOT NULL,
    key             TEXT NOT NULL,
    body_hash       INTEGER NOT NULL,
    resource_id     TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    PRIMARY KEY (route, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- A session as clients see it. Status, active turn and liveness are derived, so they cannot disagree with the turns.
CREATE VIEW session_record AS
SELECT
    session.*,
    active.turn_id AS active_turn_id,
    CASE
        WHEN state IN ('starting', 'closed', 'failed') THEN state
        WHEN active.status = 'in_progress' THEN 'turn_running'
        WHEN active.status = 'waiting_for_approval' THEN 'waiting_for_approval'
        ELSE 'ready'
    END AS status,
    agent.session_key IS NOT NULL AS live
FROM session
LEFT JOIN turn AS active
    ON active.session_key = session.session_key AND active.status IN ('in_progress', 'waiting_for_approval')
LEFT JOIN agent ON agent.session_key = session.session_key;
