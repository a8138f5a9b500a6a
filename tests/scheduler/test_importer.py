"""The import as a whole, through its process and into a real database: every row exactly once, whatever
happens.
"""

from __future__ import annotations

import asyncio
import csv
import os
import shutil
import signal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ledgerd.sample import write_sample
from ledgerd.scheduler import importer
from ledgerd.scheduler.importer import Identities, ImportFailed, ImportSummary, import_file
from tests.scheduler.conftest import INDEX_KEY, SqliteStore, write

AADHAAR = Identities("aadhaar", INDEX_KEY)
HEADER = "user,date,transaction_type,amount\n"
ID, OTHER_ID = "234123412346", "999999990019"


class CutOff(Exception):
    """What a kill looks like from inside."""


def row(amount: str, identity: str = ID) -> str:
    return f"{identity},2024-01-01,CREDIT,{amount}\n"


def time_s() -> float:
    return 1_700_000_000.0


async def run(store: Any, path: Path, rejects_bytes: int = 1_000_000, **options: Any) -> ImportSummary:
    return await import_file(store, AADHAAR, path, rejects_bytes, time_s, **options)


def rejects_of(path: Path) -> Path:
    return Path(f"{path}.rejects.csv")


def read_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def has_rejects(path: Path) -> bool:
    return rejects_of(path).exists()


def reject_lines(path: Path) -> list[int]:
    with rejects_of(path).open(newline="", encoding="utf-8") as file:
        return [int(line["line"]) for line in csv.DictReader(file)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank.csv"


async def test_a_file_is_imported_once(store: SqliteStore, path: Path) -> None:
    content = HEADER + row("1") + row("1") + row("2")
    write(path, content)
    progress: list[tuple[int, int, int]] = []
    summary = await run(store, path, on_progress=lambda *step: progress.append(step))
    size = len(content)
    assert summary == ImportSummary(str(path), True, size, 3, 0, None, 0, 0.0, 3)
    assert progress[0] == (len(HEADER), size, 0)
    assert progress[-1] == (size, size, 3)
    assert store.amounts() == [100, 100, 200]
    assert not has_rejects(path)
    copied = Path(shutil.copy(path, f"{path}.copied"))
    for again in (path, copied):
        summary = await run(store, again)
        assert (summary.is_new, summary.rows_imported) == (False, 0)
    assert store.amounts() == [100, 100, 200]
    assert store.conn.execute("SELECT COUNT(*), SUM(ended_at_ms) FROM imports").fetchone() == (
        1,
        1_700_000_000_000,
    )


async def test_it_says_how_fast_it_went(store: SqliteStore, path: Path) -> None:
    write(path, HEADER + row("1") * 7 + "bad\n")
    seconds = iter((100.0, *[104.0] * 20))
    summary = await import_file(store, AADHAAR, path, 9_999, lambda: next(seconds))
    assert (summary.seconds, summary.rows_per_s) == (4.0, 2)
    write(path, HEADER + row("2"))
    seconds = iter((100.0, *[90.0] * 20))  # the clock was set back
    assert (await import_file(store, AADHAAR, path, 9_999, lambda: next(seconds))).seconds == 0.0


async def test_a_grown_file_gives_its_tail_alone(store: SqliteStore, path: Path) -> None:
    text = HEADER
    for turn in range(3):
        text += row(str(turn)) + f"bad {turn}\n"
        grown = path if turn < 2 else path.with_name("another name.csv")
        write(grown, text)
        assert (await run(store, grown)).rows_imported == 1
    assert store.amounts() == [0, 100, 200]
    assert reject_lines(path) == [3, 5]
    assert reject_lines(path.with_name("another name.csv")) == [7]


async def test_other_content_is_another_file(store: SqliteStore, path: Path) -> None:
    write(path, HEADER + row("1") + "bad\n")
    await run(store, path)
    write(path, HEADER + row("2"))
    assert (await run(store, path)).rows_imported == 1
    assert store.amounts() == [100, 200]
    assert not has_rejects(path)


@pytest.mark.parametrize(
    ("first", "grown", "amounts"),
    [
        (row("1") + row("2").strip(), row("1") + row("2") + row("3"), [100, 200, 300]),
        (row("1") + row("2").strip(), row("1") + row("25") + row("3"), [100, 300, 2500]),
        (row("1") + row("2")[:9], row("1") + row("2"), [100, 200]),
        (row("1") + f'{ID},2024-01-01,"CREDIT\n', row("1") + f'{ID},2024-01-01,"CREDIT\n",7\n', [100, 700]),
        (row("1").strip(), row("1"), [100]),
        ("", row("1"), [100]),
    ],
)
async def test_a_last_row_without_newline_counts_and_is_read_again_when_the_file_grows(
    store: SqliteStore, path: Path, first: str, grown: str, amounts: list[int]
) -> None:
    store.register(7, ID)
    await _score(store)
    write(path, HEADER + first)
    await run(store, path)
    assert (await run(store, path)).is_new is False
    await _score(store)
    write(path, HEADER + grown)
    await run(store, path)
    assert (await run(store, path)).is_new is False
    assert store.amounts() == amounts
    imported, rejected = store.conn.execute(
        "SELECT SUM(rows_imported), SUM(rows_rejected) FROM imports"
    ).fetchone()
    assert imported == len(amounts)
    if rejected:
        assert not has_rejects(path)
    touched = await store.read("touched_users", None, 100)
    assert touched["user_ids"] == [7] or grown.strip() == first.strip()


async def _score(store: SqliteStore) -> None:
    page = await store.read("touched_users", None, 1000)
    await store.write("set_scored_through", page["after"], page["through"])
    await store.write("score_users", [7], 0, 100, 1, 0, 1000)


async def test_the_header_may_be_the_last_line(store: SqliteStore, path: Path) -> None:
    write(path, HEADER.strip())
    await run(store, path)
    write(path, HEADER + row("1") + "bad\n")
    await run(store, path)
    assert store.amounts() == [100]
    assert reject_lines(path) == [3]


@pytest.mark.parametrize("answers_taken", range(1, 7))
async def test_a_kill_at_any_point_loses_and_doubles_nothing(
    store: SqliteStore, path: Path, answers_taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "CHUNK_BYTES", 80_000)
    write_sample(path, 250, seed=4, rows_each=48)
    lines = read_lines(path)
    for bad in range(100, len(lines), 997):
        lines[bad] = f"bad {bad}\n"
    write(path, "".join(lines) + "last, without a newline")
    bad_lines = [number for number, line in enumerate(lines, start=1) if line.startswith("bad")] + [
        len(lines) + 1
    ]
    taken = 0

    def cut_off(*_: int) -> None:
        nonlocal taken
        taken += 1
        if taken == answers_taken:
            raise CutOff

    with pytest.raises(CutOff):
        await run(store, path, on_progress=cut_off)
    await run(store, path)
    expected = sorted(
        int(line.split(",")[3].replace(".", "")) for line in lines[1:] if not line.startswith("bad")
    )
    assert store.amounts() == expected
    assert reject_lines(path) == bad_lines
    assert len(store.conn.execute("SELECT id FROM imports").fetchall()) == 1


async def test_a_kill_between_the_rejects_and_their_watermark_doubles_no_line(
    store: SqliteStore, path: Path
) -> None:
    class Dying:
        """Fails at the first batch, when its rejects are written already."""

        async def read(self, name: str, *params: Any) -> Any:
            return await store.read(name, *params)

        async def write(self, name: str, *params: Any) -> Any:
            if name == "import_end":
                raise CutOff
            return await store.write(name, *params)

    write(path, HEADER + row("1") + "bad\n" + row("2") + "bad without newline")
    with pytest.raises(CutOff):
        await run(Dying(), path)
    assert reject_lines(path) == [3, 5]
    await run(store, path)
    assert reject_lines(path) == [3, 5]
    assert store.amounts() == [100, 200]


async def test_two_imports_of_one_file_at_once_count_each_row_once(store: SqliteStore, path: Path) -> None:
    write_sample(path, 100, seed=5, rows_each=60)
    results = await asyncio.gather(run(store, path), run(store, path), return_exceptions=True)
    assert all(isinstance(result, ImportSummary | ImportFailed) for result in results)
    await run(store, path)
    assert len(store.rows()) == 6000


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.subprocess.Process]:
    """The importing processes, as they come."""
    processes: list[asyncio.subprocess.Process] = []
    spawn = asyncio.create_subprocess_exec

    async def remember(*args: Any, **options: Any) -> asyncio.subprocess.Process:
        processes.append(await spawn(*args, **options))
        return processes[-1]

    monkeypatch.setattr(importer.asyncio, "create_subprocess_exec", remember)
    return processes


async def test_a_cancelled_import_ends_its_process(
    store: SqliteStore, path: Path, spawned: list[asyncio.subprocess.Process]
) -> None:
    write_sample(path, 300, seed=6, rows_each=40)
    begun = asyncio.Event()
    task = asyncio.create_task(run(store, path, on_progress=lambda *_: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert spawned[0].returncode is not None


@pytest.mark.parametrize("seed", range(3))
async def test_the_process_is_killed_again_and_again(
    store: SqliteStore,
    path: Path,
    spawned: list[asyncio.subprocess.Process],
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importer, "CHUNK_BYTES", 16_000)
    monkeypatch.setattr(importer, "PIPE_BYTES", 64 * 1024)
    write_sample(path, 300, seed, rows_each=100)
    lines = read_lines(path)
    chance = Random(seed)
    bad_lines = sorted(chance.sample(range(2, len(lines) + 1), 200))
    for number in bad_lines:
        lines[number - 1] = f"bad {number}\n"
    write(path, "".join(lines))

    killed = answers = 0

    def kill_later(*_: int) -> None:
        nonlocal answers
        answers -= 1
        if answers == 0:
            os.kill(spawned[-1].pid, signal.SIGKILL)

    for _ in range(4):
        answers = chance.randint(1, 8)
        try:
            await run(store, path, on_progress=kill_later)
        except ImportFailed as error:
            assert "the importing process ended before the file did" in str(error)  # noqa: PT017
            killed += 1
    await run(store, path)
    assert killed > 1
    good = [line.split(",")[3] for line in lines[1:] if not line.startswith("bad")]
    assert store.amounts() == sorted(int(amount.replace(".", "")) for amount in good)
    assert reject_lines(path) == bad_lines
    assert store.conn.execute("SELECT rows_imported, rows_rejected FROM imports").fetchall() == [
        (len(good), len(bad_lines))
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"date,amount\n", "no id column"), ("user".encode("utf-16"), "UTF-16"), (None, "No such file")],
)
async def test_a_file_that_cannot_be_imported_says_why_and_changes_nothing(
    store: SqliteStore, path: Path, data: bytes | None, message: str
) -> None:
    if data is not None:
        write(path, data)
    with pytest.raises(ImportFailed, match=message) as caught:
        await run(store, path)
    assert str(path) in str(caught.value)
    assert set(store.calls) == {"known_imports"}


async def test_rejects_that_cannot_be_written_stop_the_import(store: SqliteStore, path: Path) -> None:
    write(path, HEADER + "bad\n" + row("1"))
    os.symlink(path, rejects_of(path))  # noqa: PTH211
    with pytest.raises(ImportFailed, match=r"rejects\.csv: not a regular file"):
        await run(store, path)
    assert read_lines(path) == [HEADER, "bad\n", row("1")]
    assert store.rows() == []
    assert store.calls == ["known_imports"]


async def test_rejects_beyond_the_bound_are_counted(store: SqliteStore, path: Path) -> None:
    write(path, HEADER + f"{'x' * 40}\n" * 500 + row("1"))
    summary = await run(store, path, rejects_bytes=4096)
    written = len(reject_lines(path)) - 1
    assert (summary.rows_imported, summary.rows_rejected) == (1, 500)
    assert summary.rejects_left_out == 500 - written > 400
    assert store.conn.execute("SELECT rows_rejected FROM imports").fetchone() == (500,)


async def test_a_file_is_read_by_whatever_path_it_is_named(store: SqliteStore, path: Path) -> None:
    folder = path.parent / "folder"
    os.mkdir(folder)  # noqa: PTH102
    write(path, HEADER + row("1") + "bad\n")
    os.symlink(path, folder / "link.csv")  # noqa: PTH211
    assert (await run(store, folder / "link.csv")).rows_imported == 1
    assert reject_lines(folder / "link.csv") == [3]
    assert not has_rejects(path)
    assert (await run(store, folder / ".." / path.name)).is_new is False


@pytest.mark.parametrize("content", ["root:x:0:0:root\n", '"root:x\n', "root:x\xff\n", "id," * 30_000])
async def test_an_error_shows_nothing_of_the_file(store: SqliteStore, path: Path, content: str) -> None:
    write(path, content.encode("latin-1"))
    with pytest.raises(ImportFailed) as caught:
        await run(store, path.parent / ".." / path.parent.name / path.name)
    told = str(caught.value).partition(path.name)[2]
    assert not any(word in told for word in ("root", "id,id", "x:0"))


async def test_no_identity_number_is_left_in_the_clear(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    write(path, HEADER + row("1") + row("x") + f"2341 2341 2346,{OTHER_ID}\n")
    await run(store, path)
    os.remove(path)  # noqa: PTH107
    store.conn.execute("PRAGMA wal_checkpoint")
    for name, data in contents(tmp_path).items():
        assert not any(number in data for number in (ID.encode(), OTHER_ID.encode(), b"2341 2341 2346")), name
