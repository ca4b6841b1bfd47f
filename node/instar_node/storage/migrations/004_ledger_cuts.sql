-- Where this log was cut off: the last entry cut of each epoch, and the machine that had opened that epoch.
-- Kept, like the orphans, until the holder that asked for the cut has taken up what was only here.
CREATE TABLE ledger_cuts (
    epoch   INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    hash    BLOB    NOT NULL,
    machine TEXT    NOT NULL,
    PRIMARY KEY (epoch, seq, hash)
) WITHOUT ROWID;

-- Entries that change which machines are missing: few, and looked for at every start and cut.
DROP INDEX ledger_log_reported;
CREATE INDEX ledger_log_missing ON ledger_log (epoch, seq) WHERE kind IN ('reported', 'missing');
