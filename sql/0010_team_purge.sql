-- What the purge of a team needs: numbers that are not given twice, and a way to what is due.

-- Keys up to here have been given out in this table, so none is given twice after a purge of its newest rows. Whoever
-- holds one meanwhile (a cursor of a list, a stream of a scope, an agent that has not answered to mail) must not find
-- another thing under it.
CREATE TABLE key_floor (
    table_name      TEXT PRIMARY KEY,
    floor           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO key_floor VALUES
    ('scope', 0), ('team', 0), ('team_message', 0), ('team_delivery', 0), ('team_operation', 0),
    ('team_operation_diagnostic', 0);

-- Deleted teams, longest ago first.
CREATE INDEX team_by_deletion ON team (deleted_at) WHERE deleted_at IS NOT NULL;
