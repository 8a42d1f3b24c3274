-- Commands that the runtime runs for its clients: kept children with a record, two logs and a place in a queue.

CREATE TABLE process (
    -- Also the order of creation, and so that of the queue.
    process_key     INTEGER PRIMARY KEY,
    -- Also the name of the child's folder under <data>/keepers and of the log files.
    process_id      TEXT NOT NULL UNIQUE,
    -- The owner. No reference: a process may outlive the purge of its session's records. NULL = nobody's.
    session_id      TEXT,
    name            TEXT,
    -- {"command": text} or {"args": [text, …]}
    command         TEXT NOT NULL,
    cwd             TEXT NOT NULL,
    -- What the request adds to the environment, an object. May hold secrets: never shown, emptied at the end.
    env             TEXT NOT NULL,
    status          TEXT NOT NULL CHECK (status IN ('queued', 'running', 'completed', 'failed', 'timed_out', 'killed')),
    -- NULL until the child is up.
    pid             INTEGER,
    -- NULL = no limit.
    timeout_ms      INTEGER,
    kill_grace_ms   INTEGER NOT NULL,
    -- The cap of each log, as it was when the process was made.
    output_bytes_max INTEGER NOT NULL,
    -- Up to here the output is in the log file and told in the log of events; a restarted server goes on from here.
    stdout_bytes    INTEGER NOT NULL DEFAULT 0,
    stderr_bytes    INTEGER NOT NULL DEFAULT 0,
    -- What came behind the cap; known at the end.
    stdout_dropped_bytes INTEGER NOT NULL DEFAULT 0,
    stderr_dropped_bytes INTEGER NOT NULL DEFAULT 0,
    -- 'none' = /dev/null.
    stdin           TEXT NOT NULL CHECK (stdin IN ('none', 'open', 'closed')),
    -- The offset behind the last byte that was taken for stdin.
    stdin_bytes     INTEGER NOT NULL DEFAULT 0,
    exit_code       INTEGER,
    signal          INTEGER,
    -- Why it did not start, or what could not be done.
    error           TEXT,
    -- Who wanted it ended, why, and with which signal first; NULL = nobody has.
    killed_by       TEXT CHECK (killed_by IN ('request', 'timeout', 'session', 'shutdown', 'lease', 'keeper_signal')),
    kill_reason     TEXT,
    kill_signal     INTEGER,
    created_at      INTEGER NOT NULL,
    -- NULL until the child is up.
    started_at      INTEGER,
    ended_at        INTEGER
) STRICT;
-- How many run, and the queue in its order.
CREATE INDEX process_active ON process (status, process_key) WHERE status IN ('queued', 'running');
-- Those of one session.
CREATE INDEX process_by_session ON process (session_id, process_key);
-- What is old enough to be purged.
CREATE INDEX process_by_end ON process (ended_at) WHERE ended_at IS NOT NULL;

-- Bytes for stdin that were taken and are not yet known to be in the keeper's journal. The offset makes sending them
-- twice harmless.
CREATE TABLE process_stdin (
    process_key     INTEGER NOT NULL REFERENCES process ON DELETE CASCADE,
    at_offset       INTEGER NOT NULL,
    bytes           BLOB NOT NULL,
    PRIMARY KEY (process_key, at_offset)
) STRICT, WITHOUT ROWID;
