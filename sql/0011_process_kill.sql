-- When the child was sent the signal that an end begins with, if it is one of the client's choice: written down before it
-- is sent, so that no later server sends it again, and the grace counts from here. NULL = it was not sent.
ALTER TABLE process ADD COLUMN kill_sent_at INTEGER;
