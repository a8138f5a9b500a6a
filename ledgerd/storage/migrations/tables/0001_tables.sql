-- The tables file. Loans, bills, payments and once are projections of the journal and can be rebuilt
-- from it; people, tokens, bank transactions and runs are written here directly.
-- Units are in the names. Dates are proleptic Gregorian day numbers (1 = 0001-01-01), so that
-- date(day + 1721424.5) shows one. Times are milliseconds or seconds since the Unix epoch.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- People -------------------------------------------------------------------------------------

CREATE TABLE users (
    id                  INTEGER PRIMARY KEY,
    name                TEXT    NOT NULL,
    email               TEXT    NOT NULL,
    email_key           TEXT    NOT NULL UNIQUE,   -- the email without regard to case
    annual_income_paise INTEGER NOT NULL CHECK (annual_income_paise >= 0),
    password_hash       TEXT    NOT NULL,
    credit_score        INTEGER,                   -- NULL while pending
    registered_at_ms    INTEGER NOT NULL
) STRICT;
CREATE INDEX users_pending ON users (id) WHERE credit_score IS NULL;

-- The Aadhaar vault: the number itself, encrypted, stands here and nowhere else.
CREATE TABLE vault (
    user_id      INTEGER PRIMARY KEY REFERENCES users (id),
    identity_key BLOB NOT NULL UNIQUE,             -- keyed hash of the number
    ciphertext   BLOB NOT NULL,                    -- AES-256-GCM: key id, nonce, number
    last_four    TEXT NOT NULL
) STRICT;

CREATE TABLE clients (
    id            INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL,
    secret_hash   BLOB    NOT NULL,                -- SHA-256 of a 256-bit random secret
    scopes        TEXT    NOT NULL,                -- separated by one space
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE refresh_tokens (
    token_hash   BLOB    PRIMARY KEY,
    login_id     INTEGER NOT NULL,
    user_id      INTEGER NOT NULL REFERENCES users (id),
    expires_at_s INTEGER NOT NULL,
    used_at_s    INTEGER                           -- NULL until it is exchanged
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_login ON refresh_tokens (login_id);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at_s);

CREATE TABLE revoked_logins (
    login_id     INTEGER PRIMARY KEY,
    expires_at_s INTEGER NOT NULL                  -- when the last token of the login ends anyway
) STRICT;

-- Bank history, for scoring alone ---------------------------------------------------------------

-- A file is known by its content: the digest of its first bytes_done bytes.
CREATE TABLE imports (
    id            INTEGER PRIMARY KEY,
    file_name     TEXT    NOT NULL,
    bytes_done    INTEGER NOT NULL,
    lines_done    INTEGER NOT NULL,
    digest        BLOB    NOT NULL,
    header        TEXT    NOT NULL,                -- the file's columns in our names, as JSON
    rows_imported INTEGER NOT NULL,
    rows_rejected INTEGER NOT NULL,
    started_at_ms INTEGER NOT NULL,
    ended_at_ms   INTEGER                          -- NULL while it runs, or when it was cut off
) STRICT;

CREATE TABLE transactions (
    id           INTEGER PRIMARY KEY,
    identity_key BLOB    NOT NULL,                 -- as in vault: whose bank account; perhaps not registered yet
    kind         TEXT    NOT NULL CHECK (kind IN ('CREDIT', 'DEBIT')),
    amount_paise INTEGER NOT NULL CHECK (amount_paise >= 0),
    date         INTEGER NOT NULL,
    import_id    INTEGER NOT NULL REFERENCES imports (id)
) STRICT;
CREATE INDEX transactions_identity ON transactions (identity_key, kind, amount_paise);

-- Loans: projected from the journal ---------------------------------------------------------------

CREATE TABLE loans (
    id                       INTEGER PRIMARY KEY,
    borrower_id              INTEGER NOT NULL REFERENCES users (id),
    version                  INTEGER NOT NULL,
    head_hash                BLOB    NOT NULL,
    last_payment_seq         INTEGER,              -- the newest row of payments, which points to the one before
    -- terms
    amount_paise             INTEGER NOT NULL,
    apr_hundredths           INTEGER NOT NULL,     -- of a percent a year
    daily_rate_thousandths   INTEGER NOT NULL,     -- of a percent a day
    tenure                   INTEGER NOT NULL,
    plan                     TEXT    NOT NULL,
    disbursed_on             INTEGER NOT NULL,
    cycle_days               INTEGER NOT NULL,
    due_days                 INTEGER NOT NULL,
    min_due_hundredths       INTEGER NOT NULL,     -- of a percent of the principal
    -- balances
    principal_paise          INTEGER NOT NULL,
    accrued_units            INTEGER NOT NULL,     -- unbilled interest, in 1/100,000 paise
    accrued_through          INTEGER NOT NULL,
    interest_received_paise  INTEGER NOT NULL,
    principal_received_paise INTEGER NOT NULL,
    bills_issued             INTEGER NOT NULL,
    oldest_unpaid_bill       INTEGER,
    next_billing             INTEGER,              -- NULL once closed
    closed_on                INTEGER               -- NULL while open
) STRICT;
CREATE INDEX loans_borrower ON loans (borrower_id, id);
CREATE INDEX loans_next_billing ON loans (next_billing, id) WHERE next_billing IS NOT NULL;

CREATE TABLE bills (
    loan_id              INTEGER NOT NULL REFERENCES loans (id),
    number               INTEGER NOT NULL,
    billing_date         INTEGER NOT NULL,
    due_date             INTEGER NOT NULL,
    interest_paise       INTEGER NOT NULL,
    principal_due_paise  INTEGER NOT NULL,
    past_due_paise       INTEGER NOT NULL,
    interest_paid_paise  INTEGER NOT NULL,
    principal_paid_paise INTEGER NOT NULL,
    PRIMARY KEY (loan_id, number)
) STRICT, WITHOUT ROWID;

-- Appended in journal order; each row points to the loan's previous one, so that no random index grows.
CREATE TABLE payments (
    seq             INTEGER PRIMARY KEY,           -- of its event
    loan_id         INTEGER NOT NULL REFERENCES loans (id),
    version         INTEGER NOT NULL,
    previous_seq    INTEGER REFERENCES payments (seq),
    payment_id      INTEGER NOT NULL,
    transaction_id  TEXT    NOT NULL,
    paid_on         INTEGER NOT NULL,
    recorded_at_ms  INTEGER NOT NULL,
    amount_paise    INTEGER NOT NULL,
    interest_paise  INTEGER NOT NULL,
    principal_paise INTEGER NOT NULL,
    allocations     TEXT    NOT NULL               -- JSON: [[bill, due_date, interest_paise, principal_paise], ..]
) STRICT;

-- The index of what was written once: which event owns a key.
CREATE TABLE once (
    key BLOB    PRIMARY KEY,
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Nightly work --------------------------------------------------------------------------------------

CREATE TABLE billing_runs (
    id            INTEGER PRIMARY KEY,
    business_date INTEGER NOT NULL,
    status        TEXT    NOT NULL CHECK (status IN ('running', 'completed', 'interrupted')),
    due           INTEGER NOT NULL,
    billed        INTEGER NOT NULL,
    failed        INTEGER NOT NULL,
    started_at_ms INTEGER NOT NULL,
    ended_at_ms   INTEGER
) STRICT;
