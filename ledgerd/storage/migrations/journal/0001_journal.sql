-- The journal file: the only truth of loans. Rows are appended, never changed.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- One row an event. `hash` chains the events of one loan: see storage/chain.py.
CREATE TABLE events (
    seq      INTEGER PRIMARY KEY,          -- 1, 2, 3 .. over the whole book, without gaps
    loan_id  INTEGER NOT NULL,
    version  INTEGER NOT NULL,             -- 1, 2, 3 .. of this loan, without gaps
    kind     TEXT    NOT NULL,
    once_key BLOB,                         -- who may write this event once; NULL for bills
    hash     BLOB    NOT NULL,
    body     BLOB    NOT NULL              -- MessagePack of the domain event
) STRICT;

-- One row a commit: a digest over the hashes of its events and over the digest before it.
CREATE TABLE batches (
    last_seq  INTEGER PRIMARY KEY,
    digest    BLOB NOT NULL
) STRICT;
