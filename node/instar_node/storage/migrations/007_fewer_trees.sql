-- Every tree a message is written to costs pages and time; three of them could be spared.

-- Where each line of a topic stands: the messages (part 0) and the parts of committed replies (1 and up).
-- It takes the place of an index of the messages, of the replies and of an index of those.
CREATE TABLE lines (
    topic TEXT    NOT NULL,
    seq   INTEGER NOT NULL,
    key   TEXT    NOT NULL,
    part  INTEGER NOT NULL,
    PRIMARY KEY (topic, seq, key, part)
) WITHOUT ROWID;
INSERT INTO lines
    SELECT topic, seq, key, 0 FROM messages WHERE seq > 0
    UNION ALL
    SELECT topic, seq, key, part + 1 FROM replies
    ORDER BY 1, 2, 3, 4;
DROP TABLE replies;

CREATE TABLE messages_new (
    key  TEXT    NOT NULL,
    open INTEGER NOT NULL,
    row  BLOB    NOT NULL
);
INSERT INTO messages_new SELECT key, open, row FROM messages ORDER BY messages.rowid;
DROP TABLE messages;
ALTER TABLE messages_new RENAME TO messages;
CREATE UNIQUE INDEX messages_by_key ON messages (key);
CREATE INDEX messages_open ON messages (open) WHERE open = 1;

-- One index finds a line of the tail and keeps a topic's lines in order.
DROP INDEX tail_order;
DROP INDEX tail_line;
CREATE UNIQUE INDEX tail_line ON tail_entries (topic, topic_seq, role, key);
