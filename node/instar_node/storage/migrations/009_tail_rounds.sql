-- The index of the tail has an entry from the next round on (listed = 1); what came after is read by its place.
ALTER TABLE tail_entries ADD COLUMN listed INTEGER NOT NULL DEFAULT 1;
DROP INDEX tail_line;
CREATE UNIQUE INDEX tail_line ON tail_entries (topic, topic_seq, role, key) WHERE listed = 1;
