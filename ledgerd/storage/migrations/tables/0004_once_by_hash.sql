-- The index of what was written once: which event may own a key of this hash (storage/once.py). It is made
-- anew from the journal at the next start, as far as `indexed_seq` in meta does not reach.
DROP TABLE once;
CREATE TABLE once (
    hash INTEGER NOT NULL,                         -- the first 64 bits of the key's SHA-256
    seq  INTEGER NOT NULL,
    PRIMARY KEY (hash, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO meta (key, value) VALUES ('indexed_seq', 0);
