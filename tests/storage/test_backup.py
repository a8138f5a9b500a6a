"""A backup is of one moment, whatever goes on meanwhile, and appears when it is whole."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from ledgerd.storage import backup as backup_module
from ledgerd.storage.engine import Engine
from ledgerd.storage.files import open_engine
from ledgerd.storage.ports import StoreError
from ledgerd.storage.verify import verify_files
from tests.storage.books import RULES, Place, Writer, add_borrower, terms

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
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        await engine.backup(str(tmp_path / "dangling"))
    await engine.close()
    copied = await copy_of(place, folder)
    await copied.close()


async def test_what_is_no_backup_s_is_left_alone(place: Place, tmp_path: Path) -> None:
    engine = await open_engine(*place.paths)
    precious = tmp_path / "keep.partial" / "precious"
    precious.parent.mkdir()
    precious.write_text("gold")
    with pytest.raises(FileExistsError, match="move it away"):
        await engine.backup(str(tmp_path / "keep"))
    assert precious.read_text() == "gold"
    await engine.close()


async def test_a_second_backup_meanwhile_is_refused(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await open_engine(*place.paths)
    second: list[Exception] = []
    copy = backup_module.copy_file

    def begin_another(connection: sqlite3.Connection, target: Path) -> None:
        if not second:
            again = asyncio.run_coroutine_threadsafe(engine.backup(str(tmp_path / "second")), loop)
            second.append(again.exception(GUARD_S))
        copy(connection, target)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(backup_module, "copy_file", begin_another)
    await engine.backup(str(tmp_path / "second"))
    assert [type(error) for error in second] == [BlockingIOError]
    await engine.close()
    await (await copy_of(place, tmp_path / "second")).close()


@pytest.mark.parametrize("alone", ["ledgerd.db", "ledgerd.journal.db"])
async def test_half_of_a_backup_is_refused_beside_the_other_half_of_the_original(
    place: Place, tmp_path: Path, alone: str
) -> None:
    engine = await open_engine(*place.paths)
    await engine.backup(str(tmp_path / "second"))
    await engine.close()
    [target] = [path for path in place.paths if path.name == alone]
    shutil.copy(tmp_path / "second" / alone, target)
    with pytest.raises(StoreError, match="restore both from one backup"):
        await open_engine(*place.paths)
    found = verify_files(place.tables, place.journal, RULES, lambda _done, _total: None).differences
    assert "the journal is not the journal of these tables" in found


async def test_tables_older_than_the_journal_are_refused_when_they_lack_a_borrower(
    place: Place, tmp_path: Path
) -> None:
    engine = await open_engine(*place.paths)
    await engine.close()
    older = tmp_path / "older.db"
    shutil.copy(place.tables, older)
    engine = await open_engine(*place.paths)
    await add_borrower(engine)
    await engine.append(2, [Writer(1).lend()])
    await engine.close()
    shutil.copy(older, place.tables)
    found = verify_files(place.tables, place.journal, RULES, lambda _done, _total: None).differences
    assert [line for line in found if "whom the tables do not know" in line]
    for _ in range(2):
        with pytest.raises(StoreError, match="whom the tables do not know"):
            await open_engine(*place.paths)
