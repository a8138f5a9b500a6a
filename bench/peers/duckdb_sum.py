"""The same bank history grouped and summed exactly by DuckDB, with all cores and nothing stored."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from bench.peers.process import ROOT, own_peak_mb

TIMEOUT_S: Final = 600

# The columns by name and type, so that nothing is guessed; amounts are exact.
SUM: Final = """
WITH balances AS (
    SELECT id, count(*) AS rows, sum(CASE kind WHEN 'CREDIT' THEN amount ELSE -amount END) AS balance
    FROM read_csv(?, header = true, auto_detect = false, delim = ',', quote = '"', columns = {
        'id': 'VARCHAR', 'date': 'DATE', 'kind': 'VARCHAR', 'amount': 'DECIMAL(15, 2)'
    })
    GROUP BY id
)
SELECT sum(rows), count(*), sum(balance) FROM balances
"""


class DuckRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run: what it read, and what all balances come to, to be held against another sum of the file."""

    rows: int
    people: int
    balance_paise: int
    seconds: float  # without the start of Python and DuckDB
    peak_mb: float  # of the whole process

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


def rows_per_s(csv_path: Path) -> DuckRun:
    """Sum the file in a process of its own. Its columns are those of `ledgerd.sample`."""
    ran = subprocess.run(
        [sys.executable, "-m", "bench.peers.duckdb_sum", str(csv_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=TIMEOUT_S,
    )
    return msgspec.json.decode(ran.stdout, type=DuckRun)


def main() -> None:
    import duckdb  # noqa: PLC0415 - the harness does without

    connection = duckdb.connect()
    connection.execute("SET preserve_insertion_order = false")
    started_s = time.perf_counter()
    row = connection.execute(SUM, [sys.argv[1]]).fetchone()
    seconds = time.perf_counter() - started_s
    assert row is not None
    rows, people, balance = row
    run = DuckRun(
        rows=int(rows),
        people=people,
        balance_paise=int(balance * 100),
        seconds=seconds,
        peak_mb=own_peak_mb(),
    )
    print(msgspec.json.encode(run).decode())


if __name__ == "__main__":
    main()
