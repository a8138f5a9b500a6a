from __future__ import annotations

import pytest

from ledgerd.config import Clock, Scoring
from ledgerd.ids import parse_id
from tests.http.console.visitor import Seen, Visitor, ops_visitor

HERE = "/console/billing/"
CLOCK = "/console/clock/"


async def opened(world) -> tuple[Visitor, Seen]:
    visitor = await ops_visitor(world)
    return visitor, await visitor.get(HERE)


async def test_an_idle_service_says_so(world):
    _, page = await opened(world)
    assert page.table("Runs") == [["No run yet."]]
    assert page.table("Imports") == [["Nothing was imported yet."]]
    assert "5 0 * * * ( Asia/Kolkata)" in page.text.replace("(Asia", "( Asia")


async def test_what_is_due_is_billed_at_a_click(world, borrower, loan):
    world.jump(30)
    visitor, page = await opened(world)
    run = await visitor.submit(page, HERE)
    assert run.html.h1.text == "Run for 31 Jan 2026"
    assert [run.figure(name) for name in ("Due", "Billed", "Failed")] == ["1", "1", "0"]
    assert len((await world.statement(world.ops, loan))["bills"]) == 1
    page = await visitor.get(HERE)
    assert page.table("Runs")[0][1:6] == ["31 Jan 2026", "completed", "1", "1", "0"]
    assert "1 of 1 that were due" in page.text


async def test_a_day_may_be_named(world, borrower, loan):
    world.jump(65)
    visitor, page = await opened(world)
    run = await visitor.submit(page, HERE, date="2026-02-01")
    assert run.html.h1.text == "Run for 1 Feb 2026"
    assert run.figure("Billed") == "1"


@pytest.mark.parametrize("date", ["2030-01-01", "yesterday", "2026-02-30"])
async def test_a_day_that_is_none_is_told_in_the_form(world, loan, date):
    visitor, page = await opened(world)
    refused = await visitor.submit(page, HERE, date=date)
    assert refused.status == 422
    assert refused.html.select_one("[role=alert]").text
    assert refused.html.select_one("#date")["value"] == date
    assert refused.table("Runs") == [["No run yet."]]


async def test_what_failed_is_named_and_billed_again(world, borrower, loan):
    world.jump(30)
    store, today = world.service.store, world.service.services.clock.today()
    await store.write("begin_run", 7, today, 1_800_000_000_000)
    await store.write("save_run", 7, 2, 1, 1, [parse_id(loan)], "completed", 1_800_000_001_000)
    visitor, page = await opened(world)
    assert page.table("Runs")[0][1:6] == ["31 Jan 2026", "completed", "2", "1", "1"]
    run = await visitor.get(f"{HERE}0000000000000007/")
    assert [run.figure(name) for name in ("Due", "Billed", "Failed")] == ["2", "1", "1"]
    assert run.table("Loans that could not be billed") == [[loan]]
    again = await visitor.submit(run, HERE)
    assert [again.figure(name) for name in ("Due", "Billed", "Failed")] == ["1", "1", "0"]
    assert len((await world.statement(world.ops, loan))["bills"]) == 1


async def test_a_run_that_was_cut_off_says_that_nothing_is_lost(world):
    store = world.service.store
    await store.write("begin_run", 7, 739252, 1_800_000_000_000)
    await store.write("interrupt_runs", 1_800_000_001_000)
    visitor = await ops_visitor(world)
    run = await visitor.get(f"{HERE}0000000000000007/")
    assert "interrupted" in run.text
    assert "Nothing is lost" in run.text


async def test_while_a_run_goes_on_its_progress_is_fetched(world, loan, monkeypatch):
    visitor, _ = await opened(world)
    row = [1, 739252, "running", 10, 4, 1, [], 1_800_000_000_000, None]
    monkeypatch.setattr(world.service.services.billing, "latest", lambda: row)
    page = await visitor.get(HERE)
    part = page.html.select_one("[hx-get]")
    assert part["hx-get"] == f"{HERE}progress/"
    bar = part.progress
    assert (bar["max"], bar["value"]) == ("10", "5")
    row[2], row[8] = "completed", 1_800_000_002_500
    ended = await visitor.get(part["hx-get"])
    assert "in 2.5 s" in ended.text
    assert not ended.html.select("[hx-get]")


async def test_runs_are_paged(world, loan, monkeypatch):
    monkeypatch.setattr("ledgerd.http.console.billing.RUNS_A_PAGE", 2)
    await world.advance(3)
    visitor, page = await opened(world)
    [older] = [link["href"] for link in page.html.select("main a") if link.text == "Older runs"]
    rest = await visitor.get(f"{HERE}{older}")
    days = [row[1] for row in page.table("Runs") + rest.table("Runs")]
    assert days == ["4 Jan 2026", "3 Jan 2026", "2 Jan 2026"]
    assert (await visitor.get(f"{HERE}?cursor=x")).status == 422
    assert (await visitor.get(f"{HERE}0123456789abcdef/")).status == 404


# The sandbox's clock -----------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"days": "30"}, {"to": "2026-01-31"}])
async def test_the_date_moves_and_its_days_run(world, loan, fields):
    visitor, page = await opened(world)
    page = await visitor.submit(page, CLOCK, **fields)
    assert page.status == 200
    assert "31 Jan 2026 sandbox" in page.text
    assert len((await world.statement(world.ops, loan))["bills"]) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"days": "0"},
        {"days": "3661"},
        {"days": "x"},
        {"days": "1.5"},
        {"days": "9999999"},
        {"to": "2025-12-31"},
        {"to": "soon"},
        {"days": "1", "to": "2026-01-02"},
    ],
)
async def test_what_the_clock_can_not_do_is_told_in_its_form(world, fields):
    visitor, page = await opened(world)
    refused = await visitor.submit(page, CLOCK, **fields)
    assert refused.status == 422
    assert refused.html.select_one("[role=alert]").text
    assert refused.html.select_one("#days")["value"] == fields.get("days", "")
    assert "1 Jan 2026 sandbox" in refused.text


async def test_a_real_date_has_no_such_form(open_world):
    async with open_world(clock=Clock()) as world:
        visitor, page = await opened(world)
        assert not page.html.select(f'form[action="{CLOCK}"]')
        assert "sandbox" not in page.text
        assert (await visitor.ask("POST", CLOCK, {"days": "1"})).status == 404


# Imports -----------------------------------------------------------------------------------------


async def test_imports_are_listed_with_what_was_rejected(open_world, tmp_path):
    file = tmp_path / "history.csv"
    file.write_text("user,date,transaction_type,amount\na,2026-01-01,CREDIT,10\nb,never,CREDIT,10\n")
    async with open_world(scoring=Scoring(transactions_csv=str(file))) as world:
        visitor, page = await opened(world)
        for _ in range(10_000):
            rows = page.table("Imports")
            if rows[0][-1].endswith("UTC"):
                break
            page = await visitor.get(HERE)
        assert rows[0][:3] == ["history.csv", "1", "1"]
