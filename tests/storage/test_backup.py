"""A backup is of one moment, whatever goes on meanwhile, and appears when it is whole."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from ledgerd.storage import backup as backup_module
from ledgerd.storage.engine import Engine
from ledgerd.storage.files import open_engine
from tests.storage.books import Place, Writer, add_borrower, terms

GUARD_S = 30


async def copy_of(place: Place, folder: Path) -> Engine:
    return await open_engine(*(folder / path.name for path in place.paths))


async def test_a_copy_is_of_one_moment_though_people_come_and_borrow_meanwhile(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, copying, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Semaphore(0)
    copy = backup_module.copy_file

    def copy_when_told(connection: sqlite3.Connection, target: Path) -> None:
        loop.call_soon_threadsafe(copying.set)
        assert go_on.acquire(timeout=GUARD_S)
        copy(connection, target)

    monkeypatch.setattr(backup_module, "copy_file", copy_when_told)
    engine = await open_engine(*place.paths)
    await add_borrower(engine)
    writer = Writer(1)
    await engine.append(1, [writer.lend()])
    at_the_moment = writer.loaded
    backup = asyncio.create_task(engine.backup(str(tmp_path / "second")))
    try:
        async with asyncio.timeout(GUARD_S / 2):
            for number in (1, 2):  # the tables, then the journal
                await copying.wait()
                copying.clear()
                await engine.append(1, [writer.pay(f"t{number}")])
                await add_borrower(engine, 100 + number)
                await engine.append(1, [Writer(100 + number).lend(terms())])
                await engine.project_through(1 + 2 * number)
                assert not backup.done()
                go_on.release()
            await backup
    finally:
        go_on.release(2)
        await asyncio.gather(backup, return_exceptions=True)
        await engine.close()
    copied = await copy_of(place, tmp_path / "second")
    assert await copied.load([1]) == [at_the_moment]
    assert copied.opened.head_seq == 1
    assert await copied.project_through(1) == 1
    await copied.close()


async def test_a_copy_that_fails_leaves_nothing_and_one_that_was_cut_off_is_in_nobody_s_way(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await open_engine(*place.paths)
    folder = tmp_path / "deep" / "second"
    cut_off = folder.with_name("second.partial")
    cut_off.mkdir(parents=True)
    (cut_off / "ledgerd.db").write_bytes(b"half of it")

    def full(_connection: sqlite3.Connection, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(backup_module, "copy_file", full)
        with pytest.raises(OSError, match="No space"):
            await engine.backup(str(folder))
    assert [*folder.parent.iterdir()] == []
    await engine.backup(str(folder))
    assert [path.name for path in folder.parent.iterdir()] == ["second"]
    with pytest.raises(FileExistsError):
        await engine.backup(str(folder))
    await engine.close()
    copied = await copy_of(place, folder)
    await copied.close()
