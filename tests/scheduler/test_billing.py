from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from ledgerd.actors.registry import Registry
from ledgerd.domain.events import BillIssued
from ledgerd.domain.money import rupees
from ledgerd.ids import format_id
from ledgerd.scheduler import billing as billing_module
from ledgerd.scheduler.billing import Billing, Stopped
from ledgerd.storage.ports import StoreError
from tests.reference import ReferenceLoan
from tests.scheduler.house import START, House, house, until


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(billing_module, "PAGE_LOANS", 3)


def counts(row: list[Any] | dict[str, Any]) -> tuple[int, int, int]:
    """Due, billed, failed."""
    if isinstance(row, dict):
        return row["due"], row["billed"], row["failed"]
    return row[3], row[4], row[5]


# Once, however often -----------------------------------------------------------------------------


@pytest.mark.parametrize("runs_a_day", [0, 1, 5])
async def test_each_loan_is_billed_once_however_often_the_run_runs(runs_a_day: int):
    async with house() as home:
        await home.lend(10)
        for day in range(START + 1, START + 66):
            home.clock.set(day)
            for _ in range(runs_a_day):
                await home.billing.tonight()
        if runs_a_day == 0:
            assert await home.numbers() == [[]] * 10
        for loan_id in home.loan_ids:  # what touches a loan brings it up to the date
            await home.pay(loan_id, 1_00)
        assert await home.numbers() == [[1, 2]] * 10
        assert [len(history) for history in (await home.journal()).values()] == [4] * 10


async def test_late_by_weeks_is_the_same_ledger_as_nightly():
    async def live(home: House, nights: range) -> dict[int, list[tuple[Any, ...]]]:
        await home.lend(6, plan="equal_emi")
        for day in range(START + 1, START + 141):
            home.clock.set(day)
            if day - START in nights:
                await home.billing.tonight()
            if day == START + 50:
                await home.pay(home.loan_ids[0], 300_00)
        await home.billing.tonight()
        return await home.journal()

    async with house() as nightly, house() as weekly, house() as never:
        histories = await live(nightly, range(1, 141))
        assert await live(weekly, range(7, 141, 23)) == histories
        assert await live(never, range(0)) == histories
        assert await never.numbers() == [[1, 2, 3, 4]] * 6
        assert [counts(run) for run in await never.runs()] == [(6, 6, 0)]


async def test_bills_are_dated_by_their_own_cycle():
    async with house() as home:
        await home.lend(1)
        home.clock.set(START + 100)
        await home.billing.tonight()
        [bills] = await home.bills()
        assert [bill.billing_date - START for bill in bills] == [30, 60, 90]


async def test_an_earlier_date_bills_what_fell_due_by_then():
    async with house() as home:
        await home.lend(2)
        home.clock.set(START + 10)
        await home.lend(2)
        home.clock.set(START + 100)
        assert counts(await home.billing.run(START + 29)) == (0, 0, 0)
        assert counts(await home.billing.run(START + 30)) == (2, 2, 0)
        assert await home.numbers() == [[1], [1], [], []]
        assert counts(await home.billing.run(START + 69)) == (4, 4, 0)
        assert await home.numbers() == [[1, 2], [1, 2], [1], [1]]
        assert counts(await home.billing.run(START + 69)) == (0, 0, 0)


async def test_a_closed_loan_is_never_due():
    async with house() as home:
        await home.lend(2)
        await home.pay(home.loan_ids[0], 5_000_00)
        home.clock.set(START + 365)
        assert counts(await home.billing.run(START + 365)) == (1, 1, 0)
        assert [len(numbers) for numbers in await home.numbers()] == [0, 12]


# Pages, windows, limits --------------------------------------------------------------------------


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("loans", [0, 1, 2, 3, 4, 5, 6, 7])
async def test_pages_leave_nobody_out(loans: int):
    async with house(window=2) as home:
        await home.lend(loans)
        home.clock.set(START + 95)
        assert counts(await home.billing.run(START + 95)) == (loans, loans, 0)
        assert await home.numbers() == [[1, 2, 3]] * loans


@pytest.mark.usefixtures("small_pages")
async def test_pages_go_by_date_then_loan():
    async with house() as home:
        await home.lend(7, every_days=1)
        home.clock.set(START + 40)
        assert counts(await home.billing.run(START + 40)) == (7, 7, 0)
        assert await home.numbers() == [[1]] * 7


class Watched(Registry):
    """Notes the most messages that were under way at once."""

    most_in_flight = 0

    def put(self, *args: Any, **kwargs: Any) -> None:
        super().put(*args, **kwargs)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)


@pytest.mark.parametrize("window", [1, 4, 100])
async def test_ten_windows_are_under_way_while_nobody_pays(monkeypatch: pytest.MonkeyPatch, window: int):
    monkeypatch.setattr("tests.scheduler.house.Registry", Watched)
    async with house(window=window) as home:
        await home.lend(60)
        home.clock.set(START + 30)
        assert isinstance(home.registry, Watched)
        home.registry.most_in_flight = 0
        assert counts(await home.billing.run(START + 30)) == (60, 60, 0)
        assert home.registry.most_in_flight == min(10 * window, 60)


@pytest.mark.parametrize("limits", [{"in_flight": 3}, {"resident_loans": 4}])
async def test_overload_is_waited_out(limits: dict[str, int]):
    async with house(window=10, **limits) as home:
        await home.lend(10)
        home.clock.set(START + 30)
        with capture_logs() as logs:
            assert counts(await home.billing.run(START + 30)) == (10, 10, 0)
        assert [line["event"] for line in logs] == ["billing run"]
        assert await home.numbers() == [[1]] * 10


async def test_loans_that_were_billed_do_not_stay_in_memory():
    async with house() as home:
        await home.lend(20)
        home.registry._actors.clear()  # as if they had been forgotten since
        await home.pay(home.loan_ids[0], 1_00)
        home.clock.set(START + 30)
        await home.billing.tonight()
        assert list(home.registry._actors) == [home.loan_ids[0]]
        assert await home.numbers() == [[1]] * 20


# Failures ----------------------------------------------------------------------------------------


def break_actor(home: House, loan_id: int) -> None:
    """Have the loan's actor hold a state that no rule can decide on; what is on disk is sound."""
    actor = home.registry._actors[loan_id]
    assert actor.loan is not None
    actor.loan = msgspec.structs.replace(actor.loan, unpaid_bills=(None,))


async def test_the_run_that_goes_on_is_the_latest_and_then_the_one_that_ended():
    async with house() as home:
        await home.lend(3)
        home.clock.set(START + 30)
        assert home.billing.latest() is None
        running = asyncio.ensure_future(home.billing.run(START + 30))
        seen = []
        while not running.done():
            await asyncio.sleep(0)
            if home.billing.latest() is not None:
                seen.append(home.billing.latest())
        assert (seen[0][2], seen[0][4]) == ("running", 0)
        assert home.billing.latest() == await running
        assert (home.billing.latest()[2], counts(home.billing.latest())) == ("completed", (3, 3, 0))


async def test_a_loan_whose_actor_broke_is_billed_by_the_same_run():
    async with house(window=2) as home:
        await home.lend(5)
        broken_id = home.loan_ids[1]
        break_actor(home, broken_id)
        home.clock.set(START + 30)
        with capture_logs() as logs:
            assert counts(await home.billing.run(START + 30)) == (5, 5, 0)
        [told] = [line for line in logs if line["event"] == "loan not billed"]
        assert (told["log_level"], told["loan_id"]) == ("warning", format_id(broken_id))
        assert "ActorFailed" in told["error"]
        assert await home.numbers() == [[1]] * 5
        assert home.metrics.billing_bills_total._value.get() == 5
        assert [(counts(run), run["failed_loans"]) for run in await home.runs()] == [((5, 5, 0), [])]


class Unreadable:
    """Has loads fail in which one of these loans is."""

    def __init__(self, home: House, loan_ids: list[int]) -> None:
        self.loan_ids = set(loan_ids)
        self.loads: list[list[int]] = []
        self._load = home.engine.load

    async def __call__(self, loan_ids: list[int]) -> Any:
        self.loads.append(list(loan_ids))
        if self.loan_ids & set(loan_ids):
            raise RuntimeError("database disk image is malformed")
        return await self._load(loan_ids)


async def test_a_loan_that_keeps_failing_is_named_and_stops_no_other(monkeypatch: pytest.MonkeyPatch):
    """It fails whom it is read with, too: those are billed when they are tried alone."""
    async with house() as home:
        await home.lend(5)
        bad = home.loan_ids[1]
        home.registry._actors.clear()
        load = Unreadable(home, [bad])
        monkeypatch.setattr(home.engine, "load", load)
        home.clock.set(START + 30)
        with capture_logs() as logs:
            row = await home.billing.run(START + 30)
        assert (counts(row), row[6]) == ((5, 4, 1), [bad])
        assert await home.numbers() == [[1], [], [1], [1], [1]]
        [run] = await home.runs()
        assert (run["status"], counts(run), run["failed_loans"]) == ("completed", (5, 4, 1), [bad])
        [told] = [line for line in logs if line["log_level"] == "error"]
        assert (told["event"], told["failed_loans"]) == ("billing run", [format_id(bad)])
        assert len(load.loads) == 1 + 5 + 1  # all together, each alone, and the one that failed once more
        # That date is not done: a start looks at it again.
        await home.billing.catch_up(0)
        assert [counts(run) for run in await home.runs()] == [(5, 4, 1), (1, 0, 1)]
        load.loan_ids.clear()
        await home.billing.catch_up(0)
        await home.billing.catch_up(0)
        assert [counts(run) for run in await home.runs()] == [(5, 4, 1), (1, 0, 1), (1, 1, 0)]
        assert await home.numbers() == [[1]] * 5


async def test_the_first_that_fail_are_named_and_all_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(billing_module, "NAMED_MAX", 3)
    async with house() as home:
        await home.lend(8)
        home.registry._actors.clear()
        monkeypatch.setattr(home.engine, "load", Unreadable(home, home.loan_ids))
        home.clock.set(START + 30)
        with capture_logs() as logs:
            row = await home.billing.run(START + 30)
        assert (counts(row), row[6]) == ((8, 0, 8), sorted(home.loan_ids)[:3])
        told = [line for line in logs if line["event"] == "loan not billed"]
        assert len(told) == 3 + 3  # of the first try and of the second, which helped nobody


async def test_a_run_ends_with_the_journal(monkeypatch: pytest.MonkeyPatch):
    """It counts no loan as failed, and says nothing of each."""
    async with house() as home:
        await home.lend(30)
        home.clock.set(START + 30)

        async def fails(*_: Any) -> Any:
            raise OSError("disk full")

        monkeypatch.setattr(home.engine, "append", fails)
        with capture_logs() as logs, pytest.raises(StoreError, match="the journal has ended"):
            await home.billing.run(START + 30)
        [run] = await home.runs()
        assert (run["status"], counts(run), run["failed_loans"]) == ("interrupted", (30, 0, 0), [])
        assert [(line["event"], line["log_level"]) for line in logs] == [("billing run", "info")]
        home.broken.clear()


async def test_a_run_that_fails_is_interrupted_and_the_next_does_the_rest(monkeypatch: pytest.MonkeyPatch):
    async with house() as home:
        await home.lend(3)
        home.clock.set(START + 30)
        read = home.engine.read

        async def fails(name: str, *params: Any) -> Any:
            if name == "loans_due" and params[1:3] != (0, 0):  # its second page
                raise RuntimeError("disk I/O error")
            return await read(name, *params)

        with monkeypatch.context() as patch:
            patch.setattr(home.engine, "read", fails)
            with pytest.raises(RuntimeError, match="disk I/O error"):
                await home.billing.run(START + 30)
        [failed] = await home.runs()
        assert (failed["status"], counts(failed)) == ("interrupted", (3, 3, 0))
        assert failed["ended_at_ms"] is not None
        assert await home.engine.read("last_completed_date") is None
        await home.billing.run(START + 30)
        assert [run["status"] for run in await home.runs()] == ["interrupted", "completed"]
        assert await home.engine.read("last_completed_date") == START + 30


# Several at once ---------------------------------------------------------------------------------


async def test_a_run_that_goes_on_is_joined():
    async with house(window=1) as home:
        await home.lend(5)
        home.clock.set(START + 30)
        first, second, (third, ended) = await asyncio.gather(
            home.billing.run(START + 30), home.billing.run(START + 30), home.billing.start(START + 30)
        )
        assert first == second == third
        assert ended
        assert [counts(run) for run in await home.runs()] == [(5, 5, 0)]


async def test_runs_for_different_dates_take_turns():
    async with house(window=1) as home:
        await home.lend(3)
        home.clock.set(START + 60)
        late, early = await asyncio.gather(home.billing.run(START + 60), home.billing.run(START + 30))
        assert (counts(late), counts(early)) == ((3, 3, 0), (0, 0, 0))
        assert [run["status"] for run in await home.runs()] == ["completed", "completed"]
        assert await home.numbers() == [[1, 2]] * 3


async def test_a_run_that_waits_for_its_turn_can_be_looked_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(billing_module, "ANSWER_WITHIN_S", 0)
    async with house() as home:
        await home.lend(3)
        home.clock.set(START + 60)
        read, reached, go_on = home.engine.read, asyncio.Event(), asyncio.Event()

        async def held(name: str, *params: Any) -> Any:
            if name == "loans_due":
                reached.set()
                await go_on.wait()
            return await read(name, *params)

        monkeypatch.setattr(home.engine, "read", held)
        late = asyncio.ensure_future(home.billing.run(START + 60))
        await reached.wait()
        waiting, ended = await home.billing.start(START + 30)
        assert (waiting[2], counts(waiting), ended) == ("running", (0, 0, 0), False)
        assert await home.engine.read("run_by_id", waiting[0]) == waiting
        assert [run["status"] for run in await home.runs()] == ["running", "running"]
        go_on.set()
        assert counts(await late) == (3, 3, 0)
        assert counts(await home.billing.run(START + 30)) == (0, 0, 0)
        assert [run["status"] for run in await home.runs()] == ["completed", "completed"]


async def test_payments_during_a_run_bill_their_own_loan():
    async with house(window=2) as home:
        await home.lend(20)
        home.clock.set(START + 30)
        run, *_ = await asyncio.gather(
            home.billing.run(START + 30), *(home.pay(loan_id, 1_00) for loan_id in reversed(home.loan_ids))
        )
        assert counts(run)[2] == 0
        assert await home.numbers() == [[1]] * 20


@pytest.mark.usefixtures("small_pages")
async def test_a_run_that_was_cut_off_is_interrupted_and_the_next_does_the_rest():
    async with house(window=1) as home:
        await home.lend(40)
        home.clock.set(START + 30)
        caller = asyncio.ensure_future(home.billing.run(START + 30))
        await until(lambda: home.billing._going)
        [(run, _)] = home.billing._going.values()
        await until(lambda: run.billed >= 4)
        await home.billing.close()
        with pytest.raises(Stopped):
            await caller
        [row] = await home.runs()
        assert (row["status"], row["billed"]) == ("interrupted", run.billed)
        assert row["ended_at_ms"] is not None
        home.billing = home.new_billing()
        rest = await home.billing.run(START + 30)
        assert rest[3] == 40 - run.billed > 0
        assert counts(rest) == (rest[3], rest[3], 0)
        assert [row["status"] for row in await home.runs()] == ["interrupted", "completed"]
        assert await home.numbers() == [[1]] * 40
        assert (await home.engine.read("last_completed_date")) == START + 30


async def test_a_caller_who_goes_away_stops_no_run():
    async with house(window=1) as home:
        await home.lend(5)
        home.clock.set(START + 30)
        caller = asyncio.ensure_future(home.billing.run(START + 30))
        await until(lambda: home.billing._going)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        assert counts(await home.billing.run(START + 30)) == (5, 5, 0)
        assert len(await home.runs()) == 1


async def test_a_long_run_is_answered_while_it_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(billing_module, "ANSWER_WITHIN_S", 0)
    async with house(window=1) as home:
        await home.lend(5)
        home.clock.set(START + 30)
        row, ended = await home.billing.start(START + 30)
        assert (row[2], row[-1], ended) == ("running", None, False)
        assert counts(await home.billing.run(START + 30)) == (5, 5, 0)


# The sandbox's date --------------------------------------------------------------------------------


async def test_advancing_runs_each_day_in_order_and_dates_agree_with_the_reference():
    async with house() as home:
        await home.lend(30)
        rows = await home.billing.advance(to=START + 400)
        assert [row[1] for row in rows] == list(range(START + 1, START + 401))
        assert {row[2] for row in rows} == {"completed"}
        assert {row[1] - START: counts(row) for row in rows if row[3]} == {
            30 * number: (30, 30, 0) for number in range(1, 14)
        }
        assert home.clock.today() == START + 400
        assert await home.engine.read("read_clock") == ["sandbox", START + 400]
        for number, bills in enumerate(await home.bills()):
            lent = rupees(5_000_00 + number)
            reference = ReferenceLoan(lent, "14", 12, "min_due", date.fromordinal(START))
            reference.advance_to(date.fromordinal(START + 400))
            assert [shown(bill) for bill in bills] == [
                {name: bill[name] for name in shown(bills[0])} for bill in reference.bills()
            ]


async def test_scores_follow_once_after_the_last_day():
    async with house() as home:
        await home.billing.advance(days=3)
        await home.billing.advance(days=1)
        assert home.scored_on == [START + 3, START + 4]


async def test_scoring_that_takes_long_goes_on_by_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(billing_module, "ANSWER_WITHIN_S", 0)
    async with house() as home:

        async def score() -> None:
            await asyncio.Event().wait()

        home.billing = Billing(
            home.engine, home.registry, home.clock, home.run_ids, home.window, home.metrics, score
        )
        assert [row[1] for row in await home.billing.advance(days=2)] == [START + 1, START + 2]


def shown(bill: BillIssued) -> dict[str, Any]:
    return {
        "number": bill.number,
        "billing_date": date.fromordinal(bill.billing_date).isoformat(),
        "interest": rupees(bill.interest_paise),
        "principal_due": rupees(bill.principal_due_paise),
        "past_due": rupees(bill.past_due_paise),
    }


async def test_calls_to_advance_take_turns():
    async with house() as home:
        await home.lend(3)
        one, other = await asyncio.gather(
            home.billing.advance(to=START + 40), home.billing.advance(to=START + 70)
        )
        assert [row[1] - START for row in one] == list(range(1, 41))
        assert [row[1] - START for row in other] == list(range(41, 71))
        assert await home.numbers() == [[1, 2]] * 3


async def test_a_caller_of_advance_who_goes_away_leaves_no_day_half_done():
    async with house(window=1) as home:
        await home.lend(5)
        caller = asyncio.ensure_future(home.billing.advance(to=START + 60))
        await until(lambda: home.clock.today() == START + 30)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        rows = await home.billing.advance(to=START + 60)
        assert rows[-1][1] == START + 60
        assert await home.numbers() == [[1, 2]] * 5
        assert [run["status"] for run in await home.runs()] == ["completed"] * 60
