"""Post the payments of a CSV with the columns loan_id, amount and transaction_id, however many.

    ledgerd client create bank --scope payments:write > client.json
    python examples/post_csv.py payments.csv --url http://localhost:8080 --client client.json

Every row is read once before anything is sent, and a bad one ends it there. It may be killed at any time:
started again, it goes on where results were last known, and sends the few payments again of which that is
not known, under the same ids, so that each counts once. `payments.csv.journal` remembers how far it is,
`payments.csv.refused.csv` lists what was refused and why. A row whose transaction_id stands further up is
the same payment.

Exit codes: 0, all paid; 1, some were refused; 2, nothing could be sent; 3, stopped before the end: start it
again.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import fcntl
import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import aclosing, closing
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ledgerd.client import (
    Client,
    LedgerdError,
    OutcomeUnknown,
    Payment,
    Problem,
    Receipt,
    Result,
    paise,
    rupees,
)

COLUMNS = ("loan_id", "amount", "transaction_id")
REFUSED_COLUMNS = ("row", *COLUMNS, "status", "problem", "detail")
BAD_ROWS_SHOWN = 10
CHECKPOINT_S, CHECKPOINT_ROWS = 0.5, 2_000
ALL_PAID, SOME_REFUSED, NOT_BEGUN, STOPPED = range(4)

console = Console(markup=False, highlight=False, soft_wrap=True)


class CantBegin(Exception):
    """Why nothing was sent."""


# The CSV -----------------------------------------------------------------------------------------


def rows(path: Path) -> Generator[dict[str, str], None, None]:
    """Yield the rows of the CSV."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if missing := set(COLUMNS) - set(reader.fieldnames or ()):
            raise CantBegin(f"{path} has no column {', '.join(sorted(missing))}")
        yield from reader


def payments(path: Path) -> Generator[Payment, None, None]:
    """Yield the payments of the CSV; TypeError or ValueError for a row that is none."""
    with closing(rows(path)) as found:
        for row in found:
            yield payment_of(row)


def payment_of(row: dict[str, str]) -> Payment:
    """Return the payment of a row."""
    return Payment(row["loan_id"], paise(row["amount"]), row["transaction_id"])


def count(path: Path) -> int:
    """Return how many payments the CSV has; none of its rows may be anything else."""
    number, bad_rows, bad = 0, 0, []
    for number, row in enumerate(rows(path), 1):
        try:
            payment_of(row)
        except (TypeError, ValueError) as error:
            bad_rows += 1
            if bad_rows <= BAD_ROWS_SHOWN:
                bad.append(f"row {number}: {error}")
    if bad:
        raise CantBegin("\n".join([f"{path} has {bad_rows:,} rows that are no payments:", *bad]))
    return number


# What is known -----------------------------------------------------------------------------------


class Known(msgspec.Struct):
    """How far all results are known, and what they were."""

    rows: int = 0
    last_transaction_id: str = ""
    paid: int = 0
    paid_paise: int = 0
    replayed: int = 0
    refused: int = 0
    unknown: int = 0
    refused_bytes: int = 0  # of the file of refusals: what is behind them is written again


class Books:
    """The journal and the refusals beside a CSV, the second open for as long as its block lasts."""

    def __init__(self, path: Path) -> None:
        self._csv = path
        self._journal = path.with_name(f"{path.name}.journal")
        self.refused_path = path.with_name(f"{path.name}.refused.csv")
        self.known = Known()
        if self._journal.exists():
            self.known = msgspec.json.decode(self._journal.read_bytes(), type=Known)
        self._refused: IO[str]
        self._writer: Any
        self._saved_s, self._saved_rows = time.monotonic(), self.known.rows

    def __enter__(self) -> Self:
        """Go on behind the refusals that are known, unless another process does."""
        self._refused = self.refused_path.open("a", encoding="utf-8", newline="")
        try:
            fcntl.flock(self._refused, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._refused.close()
            raise CantBegin(f"{self._csv} is being posted by another process") from None
        self._refused.truncate(self.known.refused_bytes)
        self._writer = csv.writer(self._refused, lineterminator="\n")
        if self.known.refused_bytes == 0:
            self._writer.writerow(REFUSED_COLUMNS)
        return self

    def __exit__(self, *_: object) -> None:
        """Let others."""
        self._refused.close()

    def note(self, result: Result) -> None:
        """Count the result of the next row."""
        known, payment, outcome = self.known, result.payment, result.outcome
        known.rows += 1
        known.last_transaction_id = payment.transaction_id
        if isinstance(outcome, Receipt):
            known.paid += 1
            known.paid_paise += outcome.amount_paise
            known.replayed += outcome.replayed
        else:
            known.refused += isinstance(outcome, Problem)
            known.unknown += isinstance(outcome, OutcomeUnknown)
            self._writer.writerow(
                [
                    known.rows,
                    payment.loan_id,
                    rupees(payment.amount_paise),
                    payment.transaction_id,
                    *told(outcome),
                ]
            )
        if (
            known.rows - self._saved_rows >= CHECKPOINT_ROWS
            or time.monotonic() - self._saved_s > CHECKPOINT_S
        ):
            self.save()

    def save(self) -> None:
        """Have it on disk, the refusals first."""
        self._refused.flush()
        os.fsync(self._refused.fileno())
        self.known.refused_bytes = os.fstat(self._refused.fileno()).st_size
        new = self._journal.with_name(f"{self._journal.name}.new")
        with new.open("wb") as file:
            file.write(msgspec.json.encode(self.known))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._journal)
        self._saved_s, self._saved_rows = time.monotonic(), self.known.rows


def told(outcome: Problem | OutcomeUnknown) -> tuple[object, str, str]:
    """Return the status, the slug and the detail of what was not paid."""
    if isinstance(outcome, Problem):
        return outcome.status, outcome.slug, outcome.detail
    return "", "outcome-unknown", str(outcome)


# Posting -----------------------------------------------------------------------------------------


async def post(client: Client, source: Iterator[Payment], books: Books, total: int) -> None:
    """Send what has no known result, and note results as they come."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f}/s, {task.fields[refused]:,} refused"),
        TimeRemainingColumn(),
    )
    began_s, began_rows = time.monotonic(), books.known.rows
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("paying", total=total, completed=began_rows, rate=0, refused=0)
        try:
            async with aclosing(client.stream(source)) as results:
                async for result in results:
                    books.note(result)
                    known = books.known
                    if known.rows % 1000 == 0 or known.rows == total:
                        rate = (known.rows - began_rows) / (time.monotonic() - began_s)
                        progress.update(bar, completed=known.rows, rate=rate, refused=known.refused)
        finally:
            books.save()


async def run(path: Path, url: str, login: dict[str, str], retry_for_s: float) -> int:
    """Post a CSV and say what became of it; return the exit code."""
    total = count(path)
    with Books(path) as books, closing(payments(path)) as source:
        known = books.known
        if known.rows:
            last = next(islice(source, known.rows - 1, None), None)
            if last is None or last.transaction_id != known.last_transaction_id:
                raise CantBegin(f"the journal beside {path} is of another file")
            console.print(f"going on behind row {known.rows:,} of {total:,}")
        began_s, began_rows = time.monotonic(), known.rows
        try:
            async with Client(
                url, login["client_id"], login["client_secret"], retry_for_s=retry_for_s
            ) as client:
                await post(client, source, books, total)
            code = SOME_REFUSED if known.refused + known.unknown else ALL_PAID
        except LedgerdError as error:
            console.print(f"{error}\nstart it again to go on")
            code = STOPPED
        sum_up(books, total, known.rows - began_rows, time.monotonic() - began_s)
    return code


def sum_up(books: Books, total: int, done: int, seconds: float) -> None:
    """Say what became of all rows so far, of which `done` have their results since this start."""
    known = books.known
    console.print(
        f"{known.rows:,} of {total:,} payments, {done:,} of them now in {seconds:,.1f} s"
        f" ({done / seconds:,.0f}/s): {known.paid:,} paid, {rupees(known.paid_paise)} rupees"
        f" ({known.replayed:,} had counted before they were sent); {known.refused:,} refused,"
        f" {known.unknown:,} unknown"
    )
    if known.refused + known.unknown:
        console.print(f"see {books.refused_path}")


def main(args: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", type=Path)
    parser.add_argument("--url", default="http://localhost:8080")
    parser.add_argument("--client", type=Path, required=True, help="what `ledgerd client create` printed")
    parser.add_argument("--retry-for", type=float, default=3600, metavar="S", help="give up after S seconds")
    options = parser.parse_args(args)
    try:
        login = msgspec.json.decode(options.client.read_bytes())
        return asyncio.run(run(options.csv, options.url, login, options.retry_for))
    except (CantBegin, OSError, UnicodeDecodeError, csv.Error, msgspec.DecodeError) as error:
        console.print(f"{error}")
        return NOT_BEGUN
    except KeyboardInterrupt:
        console.print("stopped; start it again to go on")
        return STOPPED


if __name__ == "__main__":
    sys.exit(main())
