"""Rounds of crashes on one database: a life under load that ends at a chosen place, and a reckoning on the
next one.

`Crashes` keeps the books over all lives. A round says where it ends: at the n-th answer, in a named window of
the service (planted/sitecustomize.py), or at a call to the system while power.py notes what was synced.
"""

from __future__ import annotations

import asyncio
import csv
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from ledgerd.sample import aadhaar_number
from tests.crash.load import Books, Load, check, open_books
from tests.crash.power import Recorder
from tests.process import Service, ledgerd, ledgerd_here, serving, write_config

PLANTED = Path(__file__).with_name("planted")
ROOT = Path(__file__).parents[2]
CLIENTS = 16
LIFE_S = 60
VERIFY_EVERY = 10  # rounds

# Where a life may end, and by which time at the latest its window has opened so often.
WINDOWS = {
    "journal-before-commit": 40,
    "journal-after-commit": 40,
    "tables-before-commit": 6,
    "tables-after-commit": 6,
    "before-the-reply": 40,
    "before-the-answer": 40,
    "in-projection": 4,
    "in-merge": 2,
    "in-billing": 4,
    "in-begin_run": 2,
    "in-save_run": 3,
    "in-recovery": 1,
    "in-import_begin": 1,
    "in-import_batch": 1,
    "in-import_end": 1,
    "in-backup-copy": 2,
    "in-backup-sync": 2,
}
# With the library of power.py: before a write, before a sync and after it, of the WALs, and in checkpoints.
CALLS = {
    "w .journal.db-wal": 60,
    "b .journal.db-wal": 40,
    "a .journal.db-wal": 40,
    "w ledgerd.db-wal": 60,
    "b ledgerd.db-wal": 8,
    "w .journal.db": 12,
    "b .journal.db": 3,
    "w ledgerd.db": 12,
    "b ledgerd.db": 3,
}


def planted(**extra: str) -> dict[str, str]:
    """An environment for the service in which planted/sitecustomize.py is found, and `extra`."""
    path = os.pathsep.join([str(PLANTED), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    return {"PYTHONPATH": path.rstrip(os.pathsep), **extra}


class NotReached(AssertionError):
    """A life did not end where it should have: the round shows nothing."""


class Crashes:
    """One database, its books, and how often it crashed where."""

    def __init__(self, folder: Path, chance: Random) -> None:
        self.folder = folder
        self.chance = chance
        self.counts: Counter[str] = Counter()
        self.books: Books
        self._csv = folder / "history.csv"
        self._mark = folder / "mark"
        folder.mkdir(parents=True, exist_ok=True)
        self._grow_csv()
        self.config_path = write_config(
            folder / "db",
            storage={"url": "sqlite:///data/ledgerd.db", "index_batch": 200, "projection_batch": 50},
            scoring={"transactions_csv": str(self._csv)},
            auth={"access_ttl_s": 86_400},  # longer than any run
        )

    async def open(self, **extra: str) -> None:
        """Make the database, and lend."""
        with serving(self.config_path, **planted(**extra)) as service:
            self.books = await open_books(service, loans=4)

    # Lives -------------------------------------------------------------------------------------------

    async def killed_at_an_answer(self, victims: Callable[[Service], object], **extra: str) -> None:
        """Live until the n-th answer, and kill whom `victims` kills."""
        kill_at = self.chance.randint(1, 400)
        service = Service(self.config_path, **planted(**extra))

        def on_answer(answers: int) -> None:
            if answers == kill_at:
                victims(service)

        await self._live(service, on_answer)
        self.counts["kills"] += 1

    async def killed_in_window(self, window: str) -> None:
        """Live until both processes kill themselves in a window."""
        self._mark.unlink(missing_ok=True)
        if window.startswith("in-import"):
            self._grow_csv()
        turn = self.chance.randint(1, WINDOWS[window])
        extra = {"CRASH_AT": f"{window} {turn}", "CRASH_MARK": str(self._mark)}
        backup = self.folder / "backup" if window.startswith("in-backup") else None
        await self._live_until_it_ends(extra, backup)
        if not self._mark.exists():
            raise NotReached(f"{window} {turn}")
        if backup is not None:
            await asyncio.to_thread(self._reckon_backup, backup)
        self.counts["kills"] += 1
        self.counts[f"window {window}"] += 1

    async def power_cut(self, recorder: Recorder, call: str | None, **extra: str) -> None:
        """Live until an answer, or until a call to the system, and cut the power there."""
        extra = {"CRASH_CHECKPOINT": self.chance.choice(["8", "40", "1000"]), **extra}
        if call is None:
            environment = recorder.environment()
            await self.killed_at_an_answer(lambda service: service.kill(), **environment, **extra)
            self.counts["kills"] -= 1
        else:
            extra["CRASH_CHECKPOINT"] = "8"
            turn = self.chance.randint(1, CALLS[call])
            await self._live_until_it_ends({**recorder.environment(f"{call} {turn}"), **extra})
            if not recorder.killed_inside():
                raise NotReached(f"{call} {turn}")
            self.counts[f"cut {call}"] += 1
        recorder.cut(self.chance, self.counts)

    async def power_cut_in_first_life(self, recorder: Recorder, **extra: str) -> None:
        """Make the database, lend, live until an answer, and cut the power there."""
        kill_at = self.chance.randint(1, 100)
        service = Service(self.config_path, **planted(**recorder.environment(), **extra))

        def on_answer(answers: int) -> None:
            if answers == kill_at:
                service.kill()

        try:
            self.books = await open_books(service, loans=1)
            await self._live(service, on_answer)
        finally:
            service.kill()
        recorder.cut(self.chance, self.counts)
        self.counts["cuts in a first life"] += 1

    async def reckon(self, **extra: str) -> None:
        """Start again on what is there, and hold it against the books; now and then verify all of it."""
        with serving(self.config_path, **planted(**extra)) as service:
            await check(self.books, service)
        self.counts["reckonings"] += 1
        if self.counts["reckonings"] % VERIFY_EVERY == 0:
            await self.verify()

    async def verify(self) -> None:
        """Run `ledgerd verify` on the database."""
        verified = await asyncio.to_thread(ledgerd_here, "verify", "--config", self.config_path)
        assert verified.code == 0, verified

    def _reckon_backup(self, backup: Path) -> None:
        """What bears the name of a backup is whole; what does not is in the next one's way no longer."""
        config = ("--config", self.config_path)
        if backup.exists():
            url = f"sqlite:///{backup / 'ledgerd.db'}"
            verified = ledgerd_here("verify", *config, LEDGERD_STORAGE_URL=url)
            assert verified.code == 0, verified
            shutil.rmtree(backup)
            self.counts["backups that were whole"] += 1
        made = ledgerd_here("backup", backup, *config)
        assert made.code == 0, made
        assert not backup.with_name("backup.partial").exists()
        shutil.rmtree(backup)

    async def _live_until_it_ends(self, extra: dict[str, str], backup: Path | None = None) -> None:
        try:
            service = Service(self.config_path, **planted(**extra))
        except AssertionError:
            return  # it ended before it was ready
        await self._live(service, lambda _answers: None, backup)

    async def _live(
        self, service: Service, on_answer: Callable[[int], None], backup: Path | None = None
    ) -> None:
        """Live under load, and a backup if one is asked for, until the service ends."""
        load = Load(self.books, self.chance, on_answer)
        under_way = [load.run(service, CLIENTS)]
        if backup is not None:
            command = ("backup", str(backup), "--config", str(self.config_path))
            under_way.append(asyncio.to_thread(ledgerd, *command))
        try:
            await asyncio.wait_for(asyncio.gather(*under_way), LIFE_S)
            await service.until_ended()
        finally:
            service.kill()

    def _grow_csv(self) -> None:
        new = not self._csv.exists()
        with self._csv.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["user", "date", "amount", "transaction_type"])
            for _ in range(50):
                amount = f"{self.chance.randint(1, 10**6)}.00"
                writer.writerow([aadhaar_number(self.chance), "2025-01-02", amount, "CREDIT"])


def said(counts: Counter[str]) -> str:
    """The figures so far, on one line."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if " " not in name)


def progress(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
