-- How far each channel was read, by its own measure: the position after the newest message it brought in.
CREATE TABLE positions (
    channel  TEXT NOT NULL PRIMARY KEY,
    position TEXT NOT NULL
) WITHOUT ROWID;
