-- Messages, lines, topics, placements and positions follow from the log, and are written in rounds. This is how
-- far in the log they were written: one row. A start applies the entries after it again.
CREATE TABLE ledger_saved (
    one   INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL,
    seq   INTEGER NOT NULL
);
INSERT INTO ledger_saved VALUES (1, 0, 0);
UPDATE ledger_saved SET (epoch, seq) = (SELECT epoch, seq FROM ledger_log ORDER BY epoch DESC, seq DESC LIMIT 1)
    WHERE EXISTS (SELECT 1 FROM ledger_log);
