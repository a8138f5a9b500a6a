"""Faults of a disk: a call that writes or syncs the database fails, or all behind it too, or all are slow.

`diskfault.c`, built here and preloaded, counts the calls and fails the chosen one. Lives without a fault tell
how many calls of each kind there are; then each of them fails in turn, in an order of chance. After a sync
that a COMMIT waits for the service must end by itself; after anything else it may, or go on until it is
stopped. However it ends, it says why on lines of its own, and the next life has what the books say.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product, zip_longest
from pathlib import Path
from random import Random

from ledgerd.storage.process import STOPS
from tests.crash.load import Load
from tests.crash.power import build
from tests.crash.rounds import CLIENTS, LIFE_S, Crashes, planted
from tests.process import NotReady, Service, complaints, write_config

SOURCE = Path(__file__).with_name("diskfault.c")
ANSWERS = 60  # of a life; then it is stopped
SYNC_MS = "30"
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
FOR_EVER = 10**9
SERVED = (".journal.db-wal", "ledgerd.db-wal", ".journal.db", "ledgerd.db")  # the latter in checkpoints
MADE = (".journal.db.new", "ledgerd.db.new", ".db.new-journal")  # by the first start, in a folder of its own


Call = tuple[str, str]  # "w", "s" or "fault" (of the call before), and the name of the file


class Through(Exception):
    """Each call has failed once in each way: there is nothing left to try."""


@dataclass(frozen=True)
class Fault:
    """The n-th write or truncation ("w") or sync ("s") of a file whose name ends so fails; `lasting`: and all
    that follow.
    """

    kind: str
    suffix: str
    n: int
    error: str
    lasting: bool

    def __str__(self) -> str:
        until = FOR_EVER if self.lasting else self.n
        return f"{self.kind} {self.suffix} {self.n} {ERRORS[self.error]} {until}"


@dataclass(frozen=True)
class Life:
    """What a life left: its exit code, what it said, and its calls in order, as diskfault.c notes them."""

    code: int
    log: list[str]
    calls: list[Call]

    @property
    def faults(self) -> int:
        return sum(kind == "fault" for kind, _ in self.calls)

    def check(self) -> None:
        """However it ended, it says so on a line, or on two when the store was the first to; no traceback."""
        said = complaints(self.log)
        assert all(line.startswith(("ledgerd: ", STOPS)) and "Traceback" not in line for line in said), said
        if self.code == 0:
            assert not said
        else:
            assert self.code == 1, (self.code, self.log[-5:])
            assert 1 <= len(said) <= 2, said


def failed_commit(calls: list[Call]) -> bool:
    """Whether a sync failed that a COMMIT waited for: one of a WAL that was written to since the last.
    In a checkpoint SQLite syncs the WAL without having written, and does all of it again when that fails.
    """
    written: set[str] = set()
    for (kind, name), (after, _) in zip(calls, [*calls[1:], ("", "")], strict=True):
        if kind == "w" and after != "fault":
            written.add(name)
        elif kind == "s":
            if after == "fault" and name.endswith("-wal") and name in written:
                return True
            written.discard(name)
    return False


class Faults:
    """The faults of one database's disk, and the lives they strike."""

    def __init__(self, crashes: Crashes) -> None:
        self._crashes = crashes
        self._library = build(crashes.folder, SOURCE)
        self._log = crashes.folder / "calls"
        self._left: Iterator[Fault | None] = iter(())
        self._seed = crashes.chance.random()

    async def look(self) -> None:
        """Live once without a fault, make a database once, and choose the order of what fails."""
        of_kinds = []
        for suffixes, live in ((SERVED, self._serve), (MADE, self._make)):
            calls = (await live({})).calls
            for kind, suffix in product("ws", suffixes):
                count = sum(call == kind and name.endswith(suffix) for call, name in calls)
                assert count, f"nothing was seen of {kind} {suffix}: the faults would show nothing"
                faults = [
                    Fault(kind, suffix, n, error, lasting)
                    for n, error, lasting in product(range(1, count + 1), ERRORS, (False, True))
                ]
                of_kinds.append(sorted(faults, key=self._turn))
        turns = zip_longest(*of_kinds)  # one of each kind in turn; and None, a slow disk, before them
        self._left = iter([None, *(fault for turn in turns for fault in turn if fault is not None)])

    def _turn(self, fault: Fault) -> float:
        """Where it stands in an order of chance, however many others there are."""
        return Random(f"{self._seed} {fault}").random()

    async def strike(self, counts: Counter[str]) -> None:
        """Live with the next fault; raises Through when there is none."""
        try:
            fault = next(self._left)
        except StopIteration:
            raise Through from None
        if fault is None:
            await self._slow(counts)
            return
        try:
            live = self._make if fault.suffix in MADE else self._serve
            life = await live({"DISKFAULT_PLAN": str(fault)})
            life.check()
            if failed_commit(life.calls):
                assert life.code == 1, "it went on after a failed sync"
        except TimeoutError as error:
            raise AssertionError(f"{fault}: it goes on, or stalls") from error
        except AssertionError as error:
            raise AssertionError(f"{fault}: {error}") from error
        if life.faults:
            counts["disk faults"] += 1
            counts["disk faults that ended the service"] += life.code != 0
            counts[f"fault {fault.kind} {fault.suffix} {fault.error}"] += 1
        else:
            counts["disk faults not reached"] += 1

    async def _slow(self, counts: Counter[str]) -> None:
        """A disk that takes its time makes callers wait, and nothing else."""
        unknown = self._crashes.books.counts["answered 500"]
        life = await self._serve({"DISKFAULT_SYNC_MS": SYNC_MS})
        life.check()
        assert life.code == 0, life.log[-5:]
        assert self._crashes.books.counts["answered 500"] == unknown
        counts["lives on a slow disk"] += 1

    async def _serve(self, fault: dict[str, str]) -> Life:
        """Live under load on the database of the books, and be stopped by a signal while more comes."""
        return await self._live(self._crashes.config_path, fault, ANSWERS)

    async def _make(self, fault: dict[str, str]) -> Life:
        """Start where there is nothing yet; the next start must find nothing in its way."""
        folder = self._crashes.folder / "made"
        config_path = write_config(folder)
        life = await self._live(config_path, fault, 0)
        again = await self._live(config_path, {}, 0)
        assert again.code == 0, (fault, again.log[-5:])
        shutil.rmtree(folder)
        return life

    async def _live(self, config_path: Path, fault: dict[str, str], answers: int) -> Life:
        self._log.unlink(missing_ok=True)
        environment = {
            "LD_PRELOAD": str(self._library),
            "DISKFAULT_FOLDER": str(config_path.parent),
            "DISKFAULT_LOG": str(self._log),
            "CRASH_CHECKPOINT": "8",
            **fault,
        }
        try:
            service = Service(config_path, **planted(**environment))
        except NotReady as ended:
            return Life(ended.code, ended.log, self._calls())

        def on_answer(number: int) -> None:
            # When a COMMIT has failed it ends by itself, and the signal might be faster.
            if number == answers and not failed_commit(self._calls()):
                service.signal(signal.SIGTERM)

        try:
            on_answer(0)
            load = Load(self._crashes.books, self._crashes.chance, on_answer)
            if answers:
                await asyncio.wait_for(load.run(service, CLIENTS), LIFE_S)
            code = await service.until_ended()
        finally:
            service.kill()
        return Life(code, service.log, self._calls())

    def _calls(self) -> list[Call]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [(kind, name) for kind, _, name in (line.partition(" ") for line in lines)]
