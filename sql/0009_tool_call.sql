-- Calls of tools that change something and are not over. The row comes with the event of the call's beginning and goes
-- with that of its end; what a start finds here, the last server was killed in.
CREATE TABLE tool_call (
    call_key        INTEGER PRIMARY KEY,
    call_id         TEXT NOT NULL UNIQUE,
    session_key     INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    -- The caller's turn; NULL = it ran none.
    turn_id         TEXT,
    -- The payload of the event that told the beginning; that of the end has the same fields and more.
    told            TEXT NOT NULL,
    begun_at        INTEGER NOT NULL
) STRICT;
CREATE INDEX tool_call_by_session ON tool_call (session_key);
