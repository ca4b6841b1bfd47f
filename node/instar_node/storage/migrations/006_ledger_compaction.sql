-- The digest of an entry's body as it was written, once compaction has taken the text out of it.
ALTER TABLE ledger_log ADD COLUMN digest BLOB;

-- How far compaction has come in the log: one row.
CREATE TABLE ledger_compaction (
    one   INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL,
    seq   INTEGER NOT NULL
);
INSERT INTO ledger_compaction VALUES (1, 0, 0);
