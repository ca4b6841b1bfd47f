-- The live tail: this machine's copy of the conversation. The place of an entry is (epoch, seq).
CREATE TABLE tail_entries (
    seq INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    topic TEXT NOT NULL,
    topic_seq INTEGER NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('user', 'agent')),
    text TEXT NOT NULL,
    at TEXT NOT NULL,
    key TEXT NOT NULL,
    reply_to TEXT,
    machine_id TEXT NOT NULL,
    said_in INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    digest BLOB NOT NULL
);
CREATE UNIQUE INDEX tail_line ON tail_entries (topic, role, key, topic_seq);
CREATE INDEX tail_order ON tail_entries (topic, topic_seq, seq);

-- Which epochs the log passed through: the last seq of each. The newest row is the end of the log.
CREATE TABLE tail_lineage (
    epoch INTEGER PRIMARY KEY,
    last_seq INTEGER NOT NULL
);

-- What is held of each topic, kept up to date with the entries; floor is the newest line dropped for space.
CREATE TABLE tail_topics (
    topic TEXT PRIMARY KEY,
    floor INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    digest BLOB NOT NULL,
    last_at TEXT NOT NULL,
    last_role TEXT NOT NULL,
    last_text TEXT NOT NULL
) WITHOUT ROWID;
