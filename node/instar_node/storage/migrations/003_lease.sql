-- Epochs this machine has seen begin or learned of from others, for the history people read.
CREATE TABLE epoch_history (
    epoch   INTEGER PRIMARY KEY,
    holder  TEXT NOT NULL,
    reason  TEXT NOT NULL,
    at      TEXT NOT NULL,
    took_ms INTEGER
) STRICT;
