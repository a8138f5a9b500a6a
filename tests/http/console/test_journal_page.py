from __future__ import annotations

import pytest

from ledgerd.config import Console
from ledgerd.http.console.journal_page import lines, loan_events
from ledgerd.ids import parse_id
from tests.http.console.visitor import ops_visitor
from tests.http.outside import on_disk


async def test_every_event_stands_with_its_version_and_hash(open_world, tmp_path):
    async with open_world(storage=on_disk(tmp_path)) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        other = (await world.lend(borrower))["loan_id"]
        await world.advance(31)
        for to in (loan, other, loan):
            await world.pay(world.payer, to, "3.00")
        page = await (await ops_visitor(world)).get(f"/console/loans/{loan}/journal/")
        rows = page.table("Events")
        assert [row[0] for row in rows] == ["4", "3", "2", "1"]
        assert [row[3].split()[0] for row in rows] == ["paid", "paid", "bill", "disbursed"]
        assert [row[4] for row in rows] == ["3.00", "3.00", "207.00", "5,000.00"]
        assert all(row[6].endswith(" holds") for row in rows)
        assert "all 4 were computed again just now, and hold" in page.text


async def test_a_changed_event_shows(world, loan):
    await world.pay(world.payer, loan, "3.00")
    await world.pay(world.payer, loan, "3.00")
    services = world.service.services
    head_seq = services.registry.committer.head_seq
    events, _ = await loan_events(services.store, parse_id(loan), head_seq, 1000)
    assert [line.holds for line in lines(events)] == [True, True, True]
    changed = [events[0], type(events[1])(*[*list_of(events[1])[:-1], events[2].body]), events[2]]
    assert [line.holds for line in lines(changed)] == [True, False, True]
    assert [line.holds for line in lines([events[0], events[2]])] == [True, False]


def list_of(event) -> list:
    return [getattr(event, name) for name in event.__struct_fields__]


@pytest.mark.parametrize("rows", [1, 2, 3, 50])
async def test_it_is_found_however_many_rows_a_read_looks_at(world, borrower, loan, monkeypatch, rows):
    monkeypatch.setattr("ledgerd.http.console.journal_page.ROWS_A_READ", rows)
    other = (await world.lend(borrower))["loan_id"]
    for to in (loan, other, other, loan):
        await world.pay(world.payer, to, "1.00")
    services = world.service.services
    events, looked_at = await loan_events(services.store, parse_id(loan), 6, 1000)
    assert [event.version for event in events] == [1, 2, 3]
    assert looked_at == 6
    events, looked_at = await loan_events(services.store, parse_id(other), 6, 1000)
    assert [event.version for event in events] == [1, 2, 3]
    assert looked_at <= 5 + rows


async def test_beyond_the_limit_the_page_says_so(open_world):
    async with open_world(console=Console(journal_rows=2)) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        other = (await world.lend(borrower))["loan_id"]
        await world.pay(world.payer, loan, "1.00")
        await world.pay(world.payer, other, "1.00")
        visitor = await ops_visitor(world)
        page = await visitor.get(f"/console/loans/{loan}/journal/")
        assert [row[0] for row in page.table("Events")] == ["2"]
        assert "not among the newest 2 events" in page.text
        await world.pay(world.payer, other, "1.00")
        page = await visitor.get(f"/console/loans/{loan}/journal/")
        assert page.table("Events") == [["None of its events was found."]]


async def test_no_loan_no_journal(world):
    assert (await (await ops_visitor(world)).get("/console/loans/0123456789abcdef/journal/")).status == 404
