"""Imports by the real service, killed again and again: every score exact, every bad row told once."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import shutil
import signal
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ledgerd.control import CommandFailed, run_command
from ledgerd.sample import aadhaar_number
from tests.crash.load import api
from tests.process import GUARD_S, Service, ledgerd_here, serving, write_config

ROWS = 20_000
PEOPLE = 40
HEADER = "note,USER,Date,transaction type,AMOUNT"
NOTE = "n" * 2_400  # so that the file comes in many batches
BAD: dict[str, bytes] = {
    "expected 5 fields, found 4": b"x,{id},2024-01-01,CREDIT\n",
    "the id is not a valid identity number": b"x,234123412347,2024-01-01,CREDIT,1\n",
    "the date is not a day written YYYY-MM-DD": b"x,{id},2023-02-29,CREDIT,1\n",
    "the transaction_type is neither CREDIT nor DEBIT": b"x,{id},2024-01-01,CREDITS,1\n",
    "the amount is not rupees with at most two decimals": b"x,{id},2024-01-01,CREDIT,1.001\n",
    "the row is longer than 65536 bytes": b"x" * 70_000 + b",{id},2024-01-01,CREDIT,1\n",
    "the row has a NUL byte": b"\0,{id},2024-01-01,CREDIT,1\n",
    "the row is not valid UTF-8": b"\xff,{id},2024-01-01,CREDIT,1\n",
    "a quoted field is never closed": b'"x,{id},2024-01-01,CREDIT,1\n',
    "the row has a carriage return outside quotes": b"x\r,{id},2024-01-01,CREDIT,1\n",
    "text follows a closing quote": b'"x"y,{id},2024-01-01,CREDIT,1\n',
}


class History:
    """A CSV, and what is known of it without reading it: balances in rupees, and bad lines with reasons."""

    def __init__(self, path: Path, chance: Random) -> None:
        self.path = path
        self.people = [aadhaar_number(chance) for _ in range(PEOPLE)]
        self.balances: dict[str, Decimal] = defaultdict(Decimal)
        self.bad: list[tuple[str, str]] = []
        self._chance = chance
        self.lines = 1
        path.write_text(HEADER + "\n", encoding="utf-8")

    def grow(self, rows: int) -> None:
        """Add rows, one in a hundred a bad one."""
        with self.path.open("ab") as file:
            for number in range(rows):
                if number % 100 == 50:
                    reasons = list(BAD)
                    self._bad(file, reasons[number // 100 % len(reasons)])
                else:
                    self._good(file)

    def _bad(self, file: Any, reason: str) -> None:
        self.lines += 1
        file.write(BAD[reason].replace(b"{id}", self._chance.choice(self.people).encode()))
        self.bad.append((str(self.lines), reason))

    def _good(self, file: Any) -> None:
        person, credit = self._chance.choice(self.people), self._chance.random() < 0.6
        rupees = Decimal(self._chance.randrange(1, 2_000_00)) / 100
        self.balances[person] += rupees if credit else -rupees
        note = NOTE if self._chance.random() < 0.99 else f'"two ""lines""\n{NOTE}"'
        ending = self._chance.choice(["\n", "\n", "\n", "\r\n", "\n\n"])
        kind = self._chance.choice(["CREDIT", "Credit", " credit "] if credit else ["DEBIT", "debit"])
        file.write(f"{note},{person},2024-02-29,{kind},{rupees}{ending}".encode())
        self.lines += 1 + note.count("\n") + (ending == "\n\n")

    def score(self, person: str) -> int:
        steps = max(Decimal(0), self.balances[person] - 10_000) // 15_000
        return min(900, 300 + 10 * int(steps))

    def check_rejects(self, of: Path, after_line: int = 0) -> None:
        """The rejects file of a CSV has just the bad rows behind a line, and no number in the clear."""
        rejects = Path(f"{of}.rejects.csv")
        with rejects.open(newline="", encoding="utf-8") as file:
            told = [(row["line"], row["reason"]) for row in csv.DictReader(file)]
        assert told == [(line, reason) for line, reason in self.bad if int(line) > after_line]
        text = rejects.read_text(encoding="utf-8")
        assert not any(person in text for person in self.people)


def tables(service: Service) -> sqlite3.Connection:
    path = service.config.storage.tables_path
    assert path is not None
    return sqlite3.connect(path, isolation_level=None, timeout=0)


async def until(holds: Callable[[], bool]) -> None:
    """Look until something holds: another process's database tells nobody that it changed."""
    async with asyncio.timeout(GUARD_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def kill_in_the_middle(service: Service, path: Path, victim: str) -> None:
    """Import, stop the importing process when it has come further than it was, and kill."""
    look = "SELECT MAX(rows_imported), MAX(ended_at_ms) FROM imports"
    with closing(tables(service)) as connection:
        was = connection.execute(look).fetchone()
        command = asyncio.create_task(imported(service, path))
        await until(lambda: connection.execute(look).fetchone() != was)
        importer = importer_of(service)
        os.kill(importer, signal.SIGSTOP)
        try:
            assert connection.execute(look).fetchone()[1] is None, "it ended before it could be killed"
            if victim == "store":
                service.kill_store()
                assert await service.until_ended() == 1
            elif victim == "service":
                service.signal(signal.SIGKILL)
                service.process.wait()
        finally:
            with suppress(ProcessLookupError):  # stopped, it can't see that its parent has gone
                os.kill(importer, signal.SIGKILL)
    with pytest.raises(CommandFailed):
        await command


def importer_of(service: Service) -> int:
    """The importing process, a child of the service."""
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    [pid] = [pid for pid in children if b"import_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return int(pid)


async def register(service: Service, *people: str) -> None:
    async with api(service) as caller:
        for person in people:
            body = {"name": "Asha", "email": f"{person}@example.org", "aadhar_id": person}
            status, answer = await caller.post(
                "/api/register-user/",
                body | {"annual_income": "200000.00", "password": "correct horse battery"},
            )
            assert status == 201, answer


async def imported(service: Service, path: Path) -> dict[str, Any]:
    summary: dict[str, Any] = await run_command(
        service.config, "import_transactions", {"path": str(path)}, lambda *_: None
    )
    return summary


async def test_scores_and_rejects_are_exact_after_kills_of_every_part(tmp_path: Path):
    history = History(tmp_path / "history.csv", Random(20_260_101))
    before, during, after = (history.people[start : start + 3] for start in (0, 3, 6))
    config_path = write_config(
        tmp_path,
        identity={"kind": "aadhaar"},
        scoring={"transactions_csv": "watched.csv", "watch_s": 1},
        scheduler={"scoring_cron": "0 0 29 2 *"},
    )
    history.grow(ROWS)
    with serving(config_path) as service:
        await register(service, *before)
        await kill_in_the_middle(service, history.path, "importer")
        await register(service, *during)
        await kill_in_the_middle(service, history.path, "store")
    with serving(config_path) as service:
        await kill_in_the_middle(service, history.path, "service")
    with serving(config_path) as service:
        await imported(service, history.path)
        await register(service, *after)
        history.check_rejects(history.path)
        assert {reason for _, reason in history.bad} == BAD.keys()
        copied = Path(shutil.copy(history.path, tmp_path / "copied.csv"))
        for path in (history.path, copied):
            again = await imported(service, path)
            assert (again["is_new"], again["rows_imported"], again["rows_rejected"]) == (False, 0, 0)
        lines = history.lines
        history.grow(500)
        watched = Path(shutil.copy(history.path, tmp_path / "watched.csv"))
        with closing(tables(service)) as connection:
            ended = "SELECT COUNT(ended_at_ms) FROM imports"
            await until(lambda: connection.execute(ended).fetchone() == (2,))
            assert (await imported(service, watched))["is_new"] is False
            history.check_rejects(watched, after_line=lines)
            rows = connection.execute("SELECT rows_imported, rows_rejected FROM imports").fetchall()
            assert [sum(counts) for counts in rows] == [ROWS, 500]
            assert sum(rejected for _, rejected in rows) == len(history.bad)
            scores = connection.execute("SELECT credit_score FROM users ORDER BY id").fetchall()
        registered = [*before, *during, *after]
        assert scores == [(history.score(person),) for person in registered]
        assert len(set(scores)) > 3
        verified = await asyncio.to_thread(ledgerd_here, "verify", "--config", config_path)
    assert verified.code == 0, verified
    assert json.loads(verified.stdout)["scores"] == len(registered)
