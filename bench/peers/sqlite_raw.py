"""The ceiling of the store: payments as bare `executemany` batches on one SQLite connection.

A payment is one row as large as an event of ledgerd's journal, found by a unique index of transaction ids,
and one update of its loan; a batch is one durable transaction (WAL, synchronous=FULL, as ledgerd). There is
no rule, no hash and no projection, and the rows are made outside the measure. Cache and checkpoints are set
larger than ledgerd's, so that the index of random ids costs as little as it can.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from bench.peers.process import ROOT
from ledgerd.domain.events import Allocation, Due, PaymentRecorded, encode_event

CALLER: Final = "0654ff905a2ab10e"
CACHE_KIB: Final = 524_288  # the index of three million ids stays in it
CHECKPOINT_PAGES: Final = 65_536  # random ids dirty a page each: fewer checkpoints, at half the cost
SLACK_S: Final = 600

SCHEMA: Final = """
CREATE TABLE loans (
    id              INTEGER PRIMARY KEY,
    version         INTEGER NOT NULL,
    principal_paise INTEGER NOT NULL,
    received_paise  INTEGER NOT NULL
) STRICT;
CREATE TABLE payments (
    seq      INTEGER PRIMARY KEY,
    loan_id  INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    once_key BLOB    NOT NULL,
    hash     BLOB    NOT NULL,
    body     BLOB    NOT NULL
) STRICT;
"""
COUNT_UP: Final = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
INSERT: Final = "INSERT INTO payments VALUES (NULL, ?, ?, 'paid', ?, ?, ?)"
UPDATE: Final = (
    "UPDATE loans SET version = version + 1, principal_paise = principal_paise - 100,"
    " received_paise = received_paise + 100 WHERE id = ?"
)


def payments_per_s(
    folder: Path, loans: int = 10_000, batch: int = 1_000, earlier: int = 3_000_000, seconds: float = 5.0
) -> float:
    """Measure in a process of its own, on a book of `earlier` payments in `folder`, which is
    made at the first call and used again.
    """
    numbers = [str(number) for number in (loans, batch, earlier, seconds)]
    ran = subprocess.run(
        [sys.executable, "-m", "bench.peers.sqlite_raw", str(folder), *numbers],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=seconds + SLACK_S,
    )
    return float(json.loads(ran.stdout))


def measure(folder: Path, loans: int, batch: int, earlier: int, seconds: float) -> float:
    """Return payments/s. Raises RuntimeError when the loans don't hold every payment afterwards."""
    path = folder / f"sqlite-raw-{loans}-{earlier}.db"
    if not path.exists():
        prepare(path, loans, earlier)
    connection = sqlite3.connect(path, isolation_level=None)
    for setting in (
        "journal_mode = WAL",
        "synchronous = FULL",
        f"cache_size = -{CACHE_KIB}",
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
    ):
        connection.execute(f"PRAGMA {setting}")
    before, version = counted(connection)
    chance = random.Random(before)
    body_bytes, took_s, paid = len(body()), 0.0, 0
    while took_s < seconds:
        loan_ids = [chance.randint(1, loans) for _ in range(batch)]
        rows = [
            (loan_id, version, once_key(chance), chance.randbytes(32), chance.randbytes(body_bytes))
            for loan_id in loan_ids
        ]
        of_loans = [(loan_id,) for loan_id in loan_ids]
        started_s = time.perf_counter()
        connection.execute("BEGIN")
        connection.executemany(INSERT, rows)
        connection.executemany(UPDATE, of_loans)
        connection.execute("COMMIT")
        took_s += time.perf_counter() - started_s
        paid += batch
    after, _ = counted(connection)
    connection.close()
    if after != before + paid:
        raise RuntimeError(f"sqlite-raw paid {paid}, the book has {after - before}")
    return paid / took_s


def prepare(path: Path, loans: int, earlier: int) -> None:
    """Make the book: loans, payments before, and then the index, which is quicker so."""
    making = path.with_suffix(".making")
    making.unlink(missing_ok=True)
    connection = sqlite3.connect(making, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.executescript(SCHEMA)
    connection.execute("BEGIN")
    if earlier:
        connection.execute(
            COUNT_UP + "INSERT INTO payments SELECT i, 1 + i % ?, 1 + i / ?, 'paid',"
            " CAST('p:' || ? || ':' || lower(hex(randomblob(4))) || '-earlier-' || i AS BLOB),"
            " randomblob(32), randomblob(?) FROM n",
            (earlier, loans, loans, CALLER, len(body())),
        )
    connection.execute("CREATE UNIQUE INDEX payments_once ON payments (once_key)")
    connection.execute(
        COUNT_UP + ", paid(id, times) AS (SELECT loan_id, count(*) FROM payments GROUP BY loan_id)"
        " INSERT INTO loans SELECT i, 1 + coalesce(times, 0), 100000000000 - 100 * coalesce(times, 0),"
        " 100 * coalesce(times, 0) FROM n LEFT JOIN paid ON id = i",
        (loans,),
    )
    connection.execute("COMMIT")
    connection.close()
    making.rename(path)


def counted(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many payments there are, by the loans and by their rows, and a version greater than any."""
    count = "SELECT count(*) FROM payments INDEXED BY payments_once"  # which brings the index into the cache
    rows = int(connection.execute(count).fetchone()[0])
    received, version = connection.execute(
        "SELECT sum(received_paise) / 100, max(version) + 1 FROM loans"
    ).fetchone()
    if received != rows:
        raise RuntimeError(f"sqlite-raw: {rows} payments, {received} on the loans")
    return rows, int(version)


def once_key(chance: random.Random) -> bytes:
    """A key as ledgerd's of the load's payments."""
    return f"p:{CALLER}:{chance.getrandbits(32):08x}-{chance.getrandbits(32):08x}-1000".encode()


def body() -> bytes:
    """The event of a payment of the load, as ledgerd writes it."""
    return encode_event(
        PaymentRecorded(
            payment_id=0x0654FF90F8F05BEE,
            caller=CALLER,
            transaction_id="0123abcd-0123abcd-1000",
            paid_on=739_000,
            recorded_at_ms=1_790_000_000_000,
            amount_paise=100,
            interest_paise=0,
            principal_paise=100,
            allocations=(Allocation(0, 0, 0, 100),),
            outstanding_principal_paise=10**11 - 100,
            outstanding_interest_paise=0,
            next_due=Due(1, 739_030, 739_045, 3_000_000),
        )
    )


def main() -> None:
    folder, loans, batch, earlier, seconds = sys.argv[1:]
    print(json.dumps(measure(Path(folder), int(loans), int(batch), int(earlier), float(seconds))))


if __name__ == "__main__":
    main()
