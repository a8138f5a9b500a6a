"""Scores as they are kept: when the CSV appears, grows or is missing, and when borrowers register."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ledgerd.domain.scoring import ScoreRules
from ledgerd.sample import write_sample
from ledgerd.scheduler import importer
from ledgerd.scheduler import scoring as scoring_module
from ledgerd.scheduler.importer import Identities, ImportFailed
from ledgerd.scheduler.scoring import Scoring, import_and_score
from tests.scheduler.conftest import INDEX_KEY, SqliteStore, write

RULES = ScoreRules(base_paise=10_000_00, step_paise=15_000_00, step_points=10, min_score=300, max_score=900)
AADHAAR = Identities("aadhaar", INDEX_KEY)
REJECTS_BYTES = 1_000_000
IDS = ["234123412346", "999999990019", "499118665246"]
HEADER = "user,date,transaction_type,amount\n"


def credit(identity: str, amount: str) -> str:
    return f"{identity},2024-01-01,CREDIT,{amount}\n"


def time_s() -> float:
    return 1_700_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank.csv"


Make = Callable[..., Scoring]


@pytest.fixture
async def make(store: SqliteStore, path: Path) -> AsyncIterator[Make]:
    made: list[Scoring] = []

    def new(csv_path: Path | None = path, behind: Any = store) -> Scoring:
        made.append(Scoring(behind, AADHAAR, RULES, csv_path, REJECTS_BYTES, time_s))
        return made[-1]

    yield new
    for scoring in made:
        await scoring.close()


async def test_the_csv_is_imported_and_scored_at_start(store: SqliteStore, path: Path, make: Make) -> None:
    write_sample(path, 20, seed=1, balances_paise={IDS[0]: 568_450_00, IDS[1]: -5_00})
    for number, identity in enumerate(IDS):
        store.register(number, identity)
    scoring = make()
    await scoring.start()
    await store.until(lambda: store.scores() == {0: 670, 1: 300, 2: 300})
    assert scoring.last_error is None


async def test_whoever_registers_is_scored_when_woken(store: SqliteStore, path: Path, make: Make) -> None:
    write(path, HEADER + credit(IDS[0], "25000") + credit(IDS[1], "235000"))
    scoring = make()
    await scoring.start()
    await scoring.refresh()
    for number, identity in enumerate(IDS):
        store.register(number, identity)
        scoring.wake()
        expected = dict(list({0: 310, 1: 450, 2: 300}.items())[: number + 1])
        await store.until(lambda expected=expected: store.scores() == expected)


async def test_nothing_is_asked_of_the_store_while_nothing_happens(
    store: SqliteStore, path: Path, make: Make
) -> None:
    write(path, HEADER)
    scoring = make()
    await scoring.start()
    await scoring.refresh()
    store.calls.clear()
    for _ in range(100):
        await asyncio.sleep(0)
    assert store.calls == []
    await scoring.refresh()
    assert "known_imports" not in store.calls  # the file is as it was


async def test_a_grown_file_scores_those_it_touches_again(store: SqliteStore, path: Path, make: Make) -> None:
    before = HEADER + credit(IDS[0], "25000") + credit(IDS[1], "25000")
    write(path, before)
    for number, identity in enumerate(IDS):
        store.register(number, identity)
    scoring = make()
    await scoring.refresh()
    assert store.scores() == {0: 310, 1: 310, 2: 300}
    write(path, "\n".join([before.strip(), credit(IDS[1], "15000.00") + credit(IDS[2], "24999.99")]))
    store.conn.execute("UPDATE users SET credit_score = 311 WHERE id = 0")  # not touched: not scored again
    await scoring.refresh()
    assert store.scores() == {0: 311, 1: 320, 2: 300}


class Looks:
    """Lets a watch look once and no more; `look` returns when it has done all that it had to do."""

    def __init__(self) -> None:
        self._waits, self._goes_on = asyncio.Event(), asyncio.Event()

    async def wait(self) -> None:
        self._waits.set()
        await self._goes_on.wait()
        self._goes_on.clear()

    async def look(self) -> None:
        async with asyncio.timeout(60):
            await self._waits.wait()
            self._waits.clear()
            self._goes_on.set()
            await self._waits.wait()


async def test_a_file_that_has_changed_is_imported_when_it_stands_still(
    store: SqliteStore, path: Path, make: Make
) -> None:
    scoring, looks = make(), Looks()
    store.register(0, IDS[0])
    with capture_logs():
        await scoring.refresh()
    scoring.watch(looks.wait)
    await looks.look()  # there is no file yet
    text = HEADER
    for amount, score in (("25000", 310), ("15000", 320)):
        for part in ("bad\n", credit(IDS[0], amount)):  # still being written
            text += part
            write(path, text)
            await looks.look()
        assert store.scores() == {0: score - 10}
        await looks.look()
        assert store.scores() == {0: score}
    store.calls.clear()
    for _ in range(3):
        await looks.look()
    assert store.calls == []
    os.remove(path)  # noqa: PTH107
    await looks.look()
    write(path, "no such csv\n")
    with capture_logs() as logs:
        for _ in range(4):
            await looks.look()
    assert [line["event"] for line in logs] == ["transactions_not_imported"]  # tried once
    assert scoring.last_error is not None


async def test_a_watch_outlives_a_refresh_that_failed(store: SqliteStore, path: Path, make: Make) -> None:
    scoring, looks = make(behind=FailsAt(store, "pending_users")), Looks()
    scoring.watch(looks.wait)
    store.register(0, IDS[0])
    with capture_logs() as logs:
        for text, score in ((credit(IDS[0], "25000"), None), (credit(IDS[0], "40000"), 330)):
            write(path, HEADER + text)
            for _ in range(2):
                await looks.look()
            assert store.scores() == {0: score}
    told = ["transactions_imported", "scoring_failed", "transactions_imported"]
    assert [line["event"] for line in logs] == told


async def test_nobody_is_scored_from_half_an_import(store: SqliteStore, path: Path, make: Make) -> None:
    class Watched:
        """Lets a borrower register, and wakes the scoring, at each batch of the import."""

        async def read(self, name: str, *params: Any) -> Any:
            return await store.read(name, *params)

        async def write(self, name: str, *params: Any) -> Any:
            if name in {"import_batch", "import_end"}:
                scoring.wake()
                await asyncio.sleep(0)
                assert store.scores() == {0: None}
            return await store.write(name, *params)

    store.register(0, IDS[0])
    write_sample(path, 300, seed=2, rows_each=20, balances_paise={IDS[0]: 910_000_00})
    scoring = make(behind=Watched())
    await scoring.start()
    await scoring.refresh()
    assert store.scores() == {0: 900}


async def test_another_file_waits_for_its_turn_and_keeps_borrowers_pending(
    store: SqliteStore, path: Path, tmp_path: Path, make: Make
) -> None:
    write(path, HEADER + credit(IDS[0], "25000"))
    other = tmp_path / "other.csv"
    write(other, HEADER + credit(IDS[0], "15000"))
    store.register(0, IDS[0])
    scoring = make()
    await scoring.start()
    scoring.wake()
    refreshed = asyncio.create_task(scoring.refresh())
    imported = asyncio.create_task(scoring.import_now(other))
    await asyncio.gather(refreshed, imported)
    assert imported.result().rows_imported == 1
    assert store.scores() == {0: 320}
    with pytest.raises(ImportFailed, match="No such file"):
        await scoring.import_now(tmp_path / "missing.csv")


async def test_refreshes_at_once_are_one(store: SqliteStore, path: Path, make: Make) -> None:
    write(path, HEADER + credit(IDS[0], "25000"))
    scoring = make()
    await asyncio.gather(*(scoring.refresh() for _ in range(5)))
    assert store.calls.count("known_imports") == 1
    assert len(store.rows()) == 1


async def test_a_missing_file_is_told_once_and_pending_borrowers_are_scored(
    store: SqliteStore, path: Path, make: Make
) -> None:
    store.register(0, IDS[0])
    scoring = make()
    with capture_logs() as logs:
        await scoring.refresh()
        await scoring.refresh()
    assert store.scores() == {0: 300}
    assert scoring.last_error == f"{path}: No such file or directory"
    assert [line["event"] for line in logs] == ["transactions_not_imported"]
    write(path, HEADER + credit(IDS[0], "25000"))
    await scoring.refresh()
    assert scoring.last_error is None
    assert store.scores() == {0: 310}


@pytest.mark.parametrize("kind", ["fifo", "folder", "damaged"])
async def test_a_file_that_is_none_stops_nothing(
    store: SqliteStore, path: Path, make: Make, kind: str
) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        os.mkdir(path)  # noqa: PTH102
    else:
        write(path, b"\x00\x01\x02")
    store.register(0, IDS[0])
    scoring = make()
    with capture_logs():
        await scoring.refresh()
    assert store.scores() == {0: 300}
    assert str(path) in str(scoring.last_error)


async def test_without_a_csv_everybody_has_the_lowest_score(store: SqliteStore, make: Make) -> None:
    store.register(0, IDS[0])
    await make(None).refresh()
    assert store.scores() == {0: 300}


async def test_a_close_cuts_an_import_off_and_the_next_start_goes_on(
    store: SqliteStore, path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "CHUNK_BYTES", 80_000)
    write_sample(path, 300, seed=3, rows_each=40, balances_paise={IDS[0]: 568_450_00})
    store.register(0, IDS[0])
    first = make()
    await first.start()
    await store.until(lambda: bool(store.rows()))
    await first.close()
    assert store.scores() == {0: None}
    second = make()
    await second.refresh()
    assert len(store.rows()) == 301 * 40 + 1
    assert store.scores() == {0: 670}


async def test_rescoring_goes_on_after_a_kill(
    store: SqliteStore, path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_module, "TOUCHED_ROWS_A_PAGE", 2)
    monkeypatch.setattr(scoring_module, "TOUCHED_USERS_MAX", 1)
    monkeypatch.setattr(scoring_module, "USERS_A_BATCH", 1)
    for number, identity in enumerate(IDS):
        store.register(number, identity)
    await make(None).refresh()
    write(path, HEADER + "".join(credit(identity, "25000") for identity in IDS * 2))
    await scoring_module.import_file(store, AADHAAR, path, REJECTS_BYTES, time_s)  # and then the kill
    assert store.scores() == {0: 300, 1: 300, 2: 300}
    await make(None).refresh()
    assert store.scores() == {0: 320, 1: 320, 2: 320}
    assert (await store.read("touched_users", None, 9))["after"] == 6


async def test_a_command_imports_and_scores(store: SqliteStore, path: Path) -> None:
    store.register(0, IDS[0])
    write(path, HEADER + credit(IDS[0], "25000"))
    summary = await import_and_score(store, AADHAAR, RULES, path, REJECTS_BYTES, time_s)
    assert summary.rows_imported == 1
    assert store.scores() == {0: 310}


async def test_a_store_that_fails_is_told_and_ends_nothing_else(path: Path, make: Make) -> None:
    class Broken:
        async def read(self, *_: Any) -> Any:
            raise OSError("gone")

        write = read

    scoring = make(None, Broken())
    with capture_logs() as logs:
        await scoring.start()
        with pytest.raises(OSError, match="gone"):
            await scoring.refresh()
        await asyncio.sleep(0)
    assert [line["event"] for line in logs] == ["scoring_failed"]


class FailsAt:
    """The store, but for the next call by the name in `fails_at`."""

    def __init__(self, store: SqliteStore, fails_at: str | None = None) -> None:
        self._store = store
        self.fails_at = fails_at

    async def read(self, name: str, *params: Any) -> Any:
        self._fail_once(name)
        return await self._store.read(name, *params)

    async def write(self, name: str, *params: Any) -> Any:
        self._fail_once(name)
        return await self._store.write(name, *params)

    def _fail_once(self, name: str) -> None:
        if name == self.fails_at:
            self.fails_at = None
            raise RuntimeError("database is locked")


@pytest.mark.parametrize("name", ["pending_users", "score_users"])
async def test_one_error_of_the_store_does_not_end_scoring(store: SqliteStore, make: Make, name: str) -> None:
    behind = FailsAt(store)
    scoring = make(None, behind)
    await scoring.start()
    await scoring.refresh()
    behind.fails_at = name
    with capture_logs() as logs:
        for number, identity in enumerate(IDS):
            store.register(number, identity)
            scoring.wake()
            for _ in range(20):
                await asyncio.sleep(0)
            expected = 300 if number else None  # the first call fails, and the second scores both
            assert store.scores() == dict.fromkeys(range(number + 1), expected)
    assert [(line["event"], line["error"]) for line in logs] == [
        ("scoring_failed", "RuntimeError: database is locked")
    ]


@pytest.mark.parametrize("name", ["known_imports", "import_begin", "import_batch", "import_end"])
async def test_whatever_ends_an_import_who_is_pending_is_scored(
    store: SqliteStore, path: Path, make: Make, name: str
) -> None:
    write(path, HEADER + credit(IDS[0], "25000"))
    store.register(1, IDS[1])
    scoring = make(behind=FailsAt(store, name))
    with capture_logs() as logs:
        await scoring.refresh()
    assert store.scores() == {1: 300}
    assert scoring.last_error == "database is locked"
    assert [line["event"] for line in logs] == ["transactions_not_imported"]
    store.register(0, IDS[0])
    await scoring.refresh()
    assert scoring.last_error is None
    assert store.scores() == {0: 310, 1: 300}
