-- What retention has dropped: so that a missing number is known to be missing for a reason.

-- Events of this scope that were dropped, and the highest seq among them: newest seq = rows + dropped_count, and all
-- numbers above dropped_to_seq are there.
ALTER TABLE scope ADD COLUMN dropped_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE scope ADD COLUMN dropped_to_seq INTEGER NOT NULL DEFAULT 0;

-- The highest row id that was dropped anywhere in the log.
ALTER TABLE ledger ADD COLUMN dropped_to_row_id INTEGER NOT NULL DEFAULT 0;
-- Rows up to here need not be looked at again: their deltas are gone, and what is left stays.
ALTER TABLE ledger ADD COLUMN retention_row_id INTEGER NOT NULL DEFAULT 0;

-- What goes with a turn that is removed: without it each removal looks at every approval.
CREATE INDEX approval_by_turn ON approval (turn_key);
