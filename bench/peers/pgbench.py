"""The ceiling of row locks: a payment as one PL/pgSQL function over a locked row, driven by PostgreSQL's own
load generator, with no HTTP at all. The function is in pgbench.sql.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from bench.peers.postgres import Cluster

DATABASE: Final = "pgbench"
THREADS: Final = 2
SLACK_S: Final = 60

# Random ids, so that the unique index is entered all over, as by the other sides' load.
SCRIPT: Final = r"""
\set loan random(1, :loans)
\set transaction random(1, 9223372036854775806)
SELECT pay(:loan, 100, 1, to_hex(:transaction::bigint));
"""


class PgbenchRun(msgspec.Struct, frozen=True, kw_only=True):
    """One load. Each transaction is one payment; the latencies are those of all of them."""

    seconds: float
    payments: int
    failed: int
    rate: float  # payments/s
    mean_ms: float
    p50_ms: float
    p99_ms: float


def prepare(cluster: Cluster, loans: int, earlier_payments: int) -> None:
    """Make a new book: loans of 1,000,000,000.00 lent today at 0.038 % a day, and payments of 1.00."""
    cluster.new_database(DATABASE)
    schema = Path(__file__).with_suffix(".sql").read_text()
    cluster.psql(
        f"""{schema}
        INSERT INTO payments
        SELECT 1, substr(md5(n::text), 1, 16), 1 + n % {loans}, 100, 0, 100, current_date, now()
        FROM generate_series(1, {earlier_payments}) AS n;
        CREATE UNIQUE INDEX payments_once ON payments (client_id, transaction_id);
        INSERT INTO loans
        SELECT n, 100000000000 - coalesce(paid_paise, 0), 38, 0, current_date, 0, coalesce(paid_paise, 0)
        FROM generate_series(1, {loans}) AS n
        LEFT JOIN (SELECT loan_id, sum(amount_paise) AS paid_paise FROM payments GROUP BY loan_id) AS paid
            ON loan_id = n;
        VACUUM ANALYZE;
        CHECKPOINT;
        """,
        DATABASE,
    )
    if cluster.count_payments(DATABASE) != earlier_payments:
        raise RuntimeError("pgbench: the book is not what was asked for")


def payments_per_s(cluster: Cluster, loans: int, clients: int, seconds: int) -> PgbenchRun:
    """Pay for some seconds, over the first `loans` loans of the book; 1 is one hot row.

    Raises RuntimeError when the book afterwards does not hold exactly what pgbench counted.
    """
    before = cluster.count_payments(DATABASE)
    with tempfile.TemporaryDirectory(prefix="ledgerd-pgbench-") as name:
        folder = Path(name)
        (folder / "pay.sql").write_text(SCRIPT)
        options = ["--no-vacuum", "--file=pay.sql", "--protocol=prepared", f"--jobs={min(THREADS, clients)}"]
        options += [f"--client={clients}", f"--time={seconds}", f"--define=loans={loans}", "--log"]
        ran = subprocess.run(
            [cluster.bin / "pgbench", *options, DATABASE],
            cwd=folder,
            env={**os.environ, **cluster.environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + SLACK_S,
        )
        if ran.returncode != 0:
            raise RuntimeError(f"pgbench: {ran.stderr.strip()[:500]}")
        # A line a transaction: client, number, microseconds, ..
        took_ms = sorted(
            int(line.split()[2]) / 1000
            for log in folder.glob("pgbench_log.*")
            for line in log.read_text().splitlines()
        )
    payments = int(found(r"transactions actually processed: (\d+)", ran.stdout))
    recorded = cluster.count_payments(DATABASE) - before
    if not payments == recorded == len(took_ms):
        raise RuntimeError(f"pgbench counted {payments}, logged {len(took_ms)}, the book has {recorded}")
    rate = float(found(r"tps = ([\d.]+) \(without", ran.stdout))
    return PgbenchRun(
        seconds=payments / rate,
        payments=payments,
        failed=int(found(r"failed transactions: (\d+)", ran.stdout)),
        rate=rate,
        mean_ms=statistics.fmean(took_ms),
        p50_ms=took_ms[len(took_ms) // 2],
        p99_ms=took_ms[int(len(took_ms) * 0.99)],
    )


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"pgbench: no {pattern!r} in:\n{text}")
    return match[1]
