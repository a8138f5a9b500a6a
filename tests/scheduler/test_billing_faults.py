"""Billing runs that are killed, doubled or hurried: the ledger is that of one calm run."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ledgerd.scheduler import billing as billing_module
from ledgerd.storage.ports import StorageFull, StoreError
from ledgerd.storage.room import Room
from tests.scheduler.house import BORROWER, START, House, abandon, house
from tests.scheduler.mortal import Disk, Mortal
from tests.storage.books import add_borrower

LOANS = 10
DUE = START + 95  # three bills each


async def lived(disk: Disk, mortal: Mortal, *, run_seed: int = 0) -> House:
    """A house on that disk, on the day when everything is due. Its runs have ids of their own."""
    home = House(mortal, window=2)
    home.clock.set(DUE)
    for _ in range(run_seed):
        home.run_ids.new()
    return home


@pytest.fixture
async def lent(tmp_path: Path) -> Disk:
    """A book that is due, on a disk that nobody uses."""
    disk = Disk.new(tmp_path / "lent")
    engine = await disk.open()
    await add_borrower(engine, BORROWER)
    home = House(Mortal(engine))
    await home.lend(LOANS)
    await engine.project_through(LOANS)
    await abandon(home, disk)
    return disk


async def start_anew(disk: Disk) -> dict[int, list[tuple[Any, ...]]]:
    """What a start does, and the journal after it."""
    home = await lived(disk, Mortal(await disk.open()), run_seed=100)
    await home.engine.write("interrupt_runs", 0)
    await home.billing.catch_up(0)
    assert await home.engine.read("last_completed_date") == DUE
    await home.engine.project_through(home.registry.committer.head_seq)
    assert await home.engine.read("count_due", DUE) == 0
    home.engine = home.engine.engine
    journal = await home.journal()
    await abandon(home, disk)
    return journal


async def test_a_run_that_is_killed_at_any_call_is_finished_by_the_next_start(
    lent: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(billing_module, "PAGE_LOANS", 3)
    calm = lent.copy(tmp_path / "calm")
    mortal = Mortal(await calm.open())
    home = await lived(calm, mortal)
    await home.billing.run(DUE)
    calls = mortal.calls.total()
    assert calls > 20
    await abandon(home, calm)
    expected = await start_anew(calm)
    assert {len(history) for history in expected.values()} == {4}
    for last_call in range(1, calls + 1):
        for reaches_disk in (False, True):
            disk = lent.copy(tmp_path / f"{last_call}-{reaches_disk}")
            home = await lived(disk, Mortal(await disk.open(), last_call, reaches_disk=reaches_disk))
            with suppress(StoreError):
                await home.billing.run(DUE)
            assert home.engine.dead
            await abandon(home, disk)
            assert await start_anew(disk) == expected, (last_call, reaches_disk)


async def calls_for(loans: int) -> Counter[str]:
    async with house(window=100) as home:
        await home.lend(loans)
        home.clock.set(START + 30)
        await home.engine.project_through(loans)
        mortal = Mortal(home.engine)
        patient = House(mortal, clock=home.clock)
        assert (await patient.billing.run(START + 30))[3:6] == [loans, loans, 0]
        patient.registry.close()
        return mortal.calls


async def test_the_calls_to_the_store_are_so_many_a_page_not_a_loan(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(billing_module, "PAGE_LOANS", 50)
    few, many = await calls_for(200), await calls_for(800)
    for calls, pages in ((few, 4), (many, 16)):
        assert calls["read"] == 1 + pages + 1  # how many are due; the pages, and one that is empty
        assert calls["write"] == 1 + pages + 1  # the run begins; each page; the run ends
        assert calls["load"] <= 2 * pages
        assert calls["append"] <= 2 * pages
        assert calls["project_through"] == 1


async def test_two_billings_at_once_bill_each_loan_once():
    async with house(window=3) as home, house(window=3) as calm:
        for each in (home, calm):
            await each.lend(40, every_days=1)
            each.clock.set(START + 100)
        await calm.billing.tonight()
        other = home.new_billing()
        await asyncio.gather(home.billing.tonight(), other.tonight())
        assert await home.journal() == await calm.journal()
        runs = (await home.runs())[-2:]
        assert [run["status"] for run in runs] == ["completed", "completed"]
        assert sum(run["billed"] for run in runs) == 40
        await other.close()


async def test_a_run_on_a_disk_without_room_is_interrupted_and_the_next_one_bills_the_rest(
    lent: Disk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(billing_module, "PAGE_LOANS", 3)
    home = await lived(lent, Mortal(await lent.open()))
    free = [1]
    room = home.registry.room = Room(1, lambda: free[0])
    append = home.engine.append

    async def append_and_fill(*args: Any) -> Any:
        reply = await append(*args)
        free[0] = 0
        room.look()
        return reply

    monkeypatch.setattr(home.engine, "append", append_and_fill)
    with pytest.raises(StorageFull, match="reserve_mib"):
        await home.billing.run(DUE)
    monkeypatch.undo()
    row = home.billing.latest()
    assert row is not None
    _, _, status, due, billed, failed, *_ = row
    assert (status, due, failed) == ("interrupted", LOANS, 0)
    assert billed < LOANS
    await home.billing.tonight()  # is no failure
    free[0] = 1
    assert room.look()
    await home.billing.catch_up(0)
    row = home.billing.latest()
    assert row is not None
    assert (row[2], row[3] + billed, row[5]) == ("completed", LOANS, 0)
    await home.engine.project_through(home.registry.committer.head_seq)
    assert await home.engine.read("count_due", DUE) == 0
    await abandon(home, lent)
