-- Scores are read from a balance for each bank history, kept beside its rows: an index over the rows, in an
-- order that has nothing to do with that of a file, made each row of an import dirty a page of its own.

CREATE TABLE balances (
    identity_key BLOB    PRIMARY KEY,              -- as in transactions
    crores       INTEGER NOT NULL,                 -- credits less debits are crores * 1,000,000,000 + paise,
    paise        INTEGER NOT NULL,                 -- in two, because sums of the largest amounts overflow one
    last_id      INTEGER NOT NULL                  -- the last of its transactions
) STRICT, WITHOUT ROWID;

INSERT INTO balances (identity_key, crores, paise, last_id)
SELECT identity_key, SUM(signed_paise / 1000000000), SUM(signed_paise % 1000000000), MAX(id)
FROM (
    SELECT id, identity_key, CASE kind WHEN 'CREDIT' THEN amount_paise ELSE -amount_paise END AS signed_paise
    FROM transactions
)
GROUP BY identity_key;

-- The same rows without the index.
CREATE TABLE appended_transactions (
    id           INTEGER PRIMARY KEY,
    identity_key BLOB    NOT NULL,                 -- as in vault: whose bank account; perhaps not registered yet
    kind         TEXT    NOT NULL CHECK (kind IN ('CREDIT', 'DEBIT')),
    amount_paise INTEGER NOT NULL CHECK (amount_paise >= 0),
    date         INTEGER NOT NULL,
    import_id    INTEGER NOT NULL REFERENCES imports (id)
) STRICT;
INSERT INTO appended_transactions SELECT id, identity_key, kind, amount_paise, date, import_id FROM transactions;
DROP TABLE transactions;
ALTER TABLE appended_transactions RENAME TO transactions;
