-- What lets an agent process into the MCP gateway.
--
-- A token belongs to one agent process: it is made when the process is started and goes with its row in `agent`, so it is
-- revoked in the transaction that says that the process is gone. Only its hash is here.
CREATE TABLE agent_token (
    session_key     INTEGER PRIMARY KEY REFERENCES agent ON DELETE CASCADE,
    -- SHA-256 of the token's text.
    token_hash      BLOB NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    created_at      INTEGER NOT NULL
) STRICT;
