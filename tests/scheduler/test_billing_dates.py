"""Billing runs and the calendar: midnight, clocks that step, leap days, and hosts in other timezones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ledgerd.clock import SystemClock
from ledgerd.domain.events import PaymentRecorded, decode_event
from ledgerd.scheduler import billing as billing_module
from tests.reference import ReferenceLoan
from tests.scheduler.house import House, house
from tests.scheduler.test_billing import counts, shown

KOLKATA = ZoneInfo("Asia/Kolkata")


class Hand:
    """The hand of the wall clock in Kolkata."""

    def __init__(self, moment: str) -> None:
        self.to(moment)

    def to(self, moment: str) -> None:
        self.s = datetime.fromisoformat(moment).replace(tzinfo=KOLKATA).timestamp()

    def __call__(self) -> float:
        return self.s


def day(text: str) -> int:
    return date.fromisoformat(text).toordinal()


async def lend_on_two_days(home: House, hand: Hand) -> None:
    """Three loans that are due on 31 January, and three that are due the day after."""
    await home.lend(3)
    hand.to("2026-01-02T12:00")
    await home.lend(3)


class Held:
    """A run of small pages that waits before its second one."""

    def __init__(self, home: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self._read = home.engine.read
        monkeypatch.setattr(billing_module, "PAGE_LOANS", 2)
        monkeypatch.setattr(home.engine, "read", self)

    async def __call__(self, name: str, *params: Any) -> Any:
        if name == "loans_due" and params[1:3] != (0, 0):
            self.reached.set()
            await self.go_on.wait()
        return await self._read(name, *params)


async def test_a_run_that_crosses_midnight_bills_the_day_it_began_on(monkeypatch: pytest.MonkeyPatch):
    hand = Hand("2026-01-01T12:00")
    async with house(clock=SystemClock(KOLKATA, time_s=hand)) as home:
        await lend_on_two_days(home, hand)
        hand.to("2026-01-31T23:59:59")
        held = Held(home, monkeypatch)
        night = asyncio.ensure_future(home.billing.tonight())
        await held.reached.wait()
        hand.to("2026-02-01T00:00:01")
        await home.pay(home.loan_ids[2], 1_00)  # dated tomorrow, and billed by itself
        held.go_on.set()
        await night
        [run] = await home.runs()
        assert (run["date"], counts(run)) == (day("2026-01-31"), (3, 2, 0))
        assert await home.numbers() == [[1], [1], [1], [], [], []]
        await home.billing.tonight()
        assert (await home.runs())[-1]["date"] == day("2026-02-01")
        dates = [[date.fromordinal(bill.billing_date) for bill in bills] for bills in await home.bills()]
        assert dates == [[date(2026, 1, 31)]] * 3 + [[date(2026, 2, 1)]] * 3


async def test_a_clock_that_steps_back_under_a_run_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    async def live(*, steps: bool) -> dict[int, list[tuple[Any, ...]]]:
        hand = Hand("2026-01-01T12:00")
        async with house(clock=SystemClock(KOLKATA, time_s=hand)) as home:
            await lend_on_two_days(home, hand)
            hand.to("2026-02-01T00:05")
            held = Held(home, monkeypatch)
            night = asyncio.ensure_future(home.billing.tonight())
            await held.reached.wait()
            if steps:
                hand.to("2026-01-30T22:00")
            await home.pay(home.loan_ids[-1], 1_00)
            held.go_on.set()
            await night
            await home.billing.tonight()
            assert [run["date"] for run in await home.runs()] == [day("2026-02-01")] * 2
            assert await home.numbers() == [[1]] * 6
            # Real time, which a payment keeps, may go back; its hash is over that, too.
            return {i: [row[:2] for row in rows] for i, rows in (await home.journal()).items()}

    assert await live(steps=True) == await live(steps=False)


@pytest.mark.parametrize("lent_on", ["2028-01-29", "2028-01-30", "2028-01-31", "2028-02-29", "2027-11-01"])
async def test_a_book_that_crosses_a_leap_day_agrees_with_the_reference(lent_on: str):
    hand = Hand(f"{lent_on}T12:00")
    async with house(clock=SystemClock(KOLKATA, time_s=hand)) as home:
        await home.lend(1)
        await home.lend(1, plan="equal_emi")
        first = day(lent_on)
        for today in range(first + 1, first + 131):
            hand.to(f"{date.fromordinal(today).isoformat()}T00:05")
            await home.billing.tonight()
        for plan, bills in zip(("min_due", "equal_emi"), await home.bills(), strict=True):
            reference = ReferenceLoan("5000.00", "14", 12, plan, date.fromordinal(first))
            reference.advance_to(date.fromordinal(first + 130))
            assert [bill.number for bill in bills] == [1, 2, 3, 4]
            assert [shown(bill) for bill in bills] == [
                {name: bill[name] for name in shown(bills[0])} for bill in reference.bills()
            ]


@pytest.mark.parametrize("later", [0, 1])
@pytest.mark.parametrize(
    ("zone", "changes_on"),
    [
        ("America/New_York", "2026-03-08"),  # a day of 23 hours,
        ("America/New_York", "2025-11-02"),  # and one of 25
        ("America/Santiago", "2025-09-07"),  # whose midnight did not come,
        ("America/Havana", "2025-11-02"),  # or came twice
    ],
)
async def test_where_the_clocks_change_a_bill_comes_once_at_midnight(zone: str, changes_on: str, later: int):
    here, due_on = ZoneInfo(zone), day(changes_on) + later
    hand = Hand(f"{date.fromordinal(due_on - 30)}T12:00")
    async with house(clock=SystemClock(here, time_s=hand)) as home:
        await home.lend(2)
        hand.s += 28 * 86_400
        for _ in range(4 * 24 * 4):
            hand.s += 900
            await home.billing.tonight()
            is_due = datetime.fromtimestamp(hand.s, here).toordinal() >= due_on
            assert await home.numbers() == [[1] if is_due else []] * 2
        assert [[bill.billing_date for bill in bills] for bills in await home.bills()] == [[due_on]] * 2
        billed = [run["billed"] for run in await home.runs()]
        assert sorted(billed) == [0] * (len(billed) - 1) + [2]


async def test_a_bill_is_there_from_the_first_moment_of_its_date():
    """A payment of the moment before is money ahead of time; one of the moment itself pays the bill."""
    for moment, bill_paid, bills in (("2026-01-30T23:59:59.999", 0, []), ("2026-01-31T00:00", 1, [1])):
        hand = Hand("2026-01-01T12:00")
        async with house(clock=SystemClock(KOLKATA, time_s=hand)) as home:
            await home.lend(1)
            hand.to(moment)
            await home.pay(home.loan_ids[0], 207_00)
            last = decode_event((await home.journal())[home.loan_ids[0]][-1][-1])
            assert isinstance(last, PaymentRecorded)
            assert [part.bill for part in last.allocations] == [bill_paid]
            assert await home.numbers() == [bills]


async def test_what_is_due_is_past_due_from_the_first_moment_after_its_date():
    hand = Hand("2026-01-01T12:00")
    async with house(clock=SystemClock(KOLKATA, time_s=hand)) as home:
        await home.lend(1)
        for moment, past_due_paise in (("2026-02-15T23:59:59.999", 0), ("2026-02-16T00:00", 207_00)):
            hand.to(moment)
            view = await home.registry.ask(home.loan_ids[0], None)
            assert view.loan.past_due_paise(view.today) == past_due_paise


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Moves the host to another timezone."""

    def move_to(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield move_to
    monkeypatch.undo()
    time.tzset()


async def test_the_host_s_timezone_makes_no_difference(host: Any):
    journals = []
    for zone in ("UTC", "Asia/Kolkata", "America/New_York"):
        host(zone)
        hand = Hand("2026-01-01T00:10")  # the day before in UTC, and in New York
        async with house(clock=SystemClock(KOLKATA, time_s=hand)) as home:
            await home.lend(2)
            hand.to("2026-01-31T00:05")
            await home.billing.tonight()
            [run] = await home.runs()
            assert (run["date"], counts(run)) == (day("2026-01-31"), (2, 2, 0))
            [[bill], _] = await home.bills()
            assert bill.billing_date == day("2026-01-31")
            journals.append(await home.journal())
    assert journals[0] == journals[1] == journals[2]
