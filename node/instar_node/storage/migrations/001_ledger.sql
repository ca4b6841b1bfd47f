-- The replicated log: one row an entry, in the order (epoch, seq), each hash over the one before it.
-- count and bytes are running totals of this copy (what "behind" is measured with); they are not hashed.
CREATE TABLE ledger_log (
    epoch INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    kind  TEXT    NOT NULL,
    body  BLOB    NOT NULL,
    hash  BLOB    NOT NULL,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (epoch, seq)
) WITHOUT ROWID;
CREATE INDEX ledger_log_reported ON ledger_log (epoch) WHERE kind = 'reported';

-- What the entries join to. row is the whole message row (msgpack); the columns beside it are for finding it.
CREATE TABLE messages (
    key   TEXT    NOT NULL UNIQUE,
    topic TEXT    NOT NULL,
    seq   INTEGER NOT NULL,
    open  INTEGER NOT NULL,
    row   BLOB    NOT NULL
);
CREATE INDEX messages_by_topic ON messages (topic, seq);
CREATE INDEX messages_open ON messages (open) WHERE open = 1;

-- Lines of committed replies: where in its topic each part of an answer stands.
CREATE TABLE replies (
    key   TEXT    NOT NULL,
    part  INTEGER NOT NULL,
    topic TEXT    NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (key, part)
) WITHOUT ROWID;
CREATE INDEX replies_by_topic ON replies (topic, seq);

-- The newest line and the highest line number of each topic.
CREATE TABLE topics (
    topic TEXT NOT NULL PRIMARY KEY,
    row   BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE placements (
    topic TEXT NOT NULL PRIMARY KEY,
    row   BLOB NOT NULL
) WITHOUT ROWID;

-- Rows whose log entries were cut off here and have not yet come back from the holder that took them up.
CREATE TABLE ledger_orphans (
    kind TEXT NOT NULL,
    id   TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
