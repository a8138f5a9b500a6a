"""The business date: at midnight of its zone, and never back."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from ledgerd.clock import Clock, SandboxClock, SystemClock

KOLKATA = ZoneInfo("Asia/Kolkata")


class Hand:
    """The hand of a clock that the test moves."""

    def __init__(self, *moment: int) -> None:
        self.to(*moment)

    def to(self, *moment: int) -> None:
        self.s = datetime(*moment, tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.s


def day(text: str) -> int:
    return date.fromisoformat(text).toordinal()


def test_the_date_changes_at_midnight_of_the_zone():
    hand = Hand(2026, 3, 10, 18, 29, 59)
    clock: Clock = SystemClock(KOLKATA, time_s=hand)
    assert clock.today() == day("2026-03-10")
    hand.to(2026, 3, 10, 18, 30)
    assert clock.today() == day("2026-03-11")
    hand.to(2026, 3, 11, 18, 29, 59)
    assert clock.today() == day("2026-03-11")
    hand.to(2026, 3, 11, 18, 30)
    assert clock.today() == day("2026-03-12")


def test_after_a_long_sleep_the_date_is_right():
    hand = Hand(2026, 3, 10)
    clock = SystemClock(KOLKATA, time_s=hand)
    assert clock.today() == day("2026-03-10")
    hand.to(2027, 1, 1)
    assert clock.today() == day("2027-01-01")


def test_the_date_never_goes_back_with_the_clock():
    hand = Hand(2026, 3, 10, 20)
    clock = SystemClock(KOLKATA, time_s=hand)
    assert clock.today() == day("2026-03-11")
    hand.to(2026, 3, 9)
    assert clock.today() == day("2026-03-11")
    hand.to(2026, 3, 11, 18, 30)
    assert clock.today() == day("2026-03-12")


def test_the_date_waits_at_the_floor_until_the_clock_has_passed_it():
    hand = Hand(2026, 3, 10)
    clock = SystemClock(KOLKATA, floor_day=day("2026-03-12"), time_s=hand)
    assert clock.today() == day("2026-03-12")
    hand.to(2026, 3, 12, 18, 29, 59)
    assert clock.today() == day("2026-03-12")
    hand.to(2026, 3, 12, 18, 30)
    assert clock.today() == day("2026-03-13")


@pytest.mark.parametrize(
    ("zone", "last_moment", "first_moment", "first_day"),
    [
        # Midnight skipped: 00:00 became 01:00.
        ("America/Sao_Paulo", (2018, 11, 4, 2, 59, 59), (2018, 11, 4, 3), "2018-11-04"),
        # Midnight twice: 01:00 became 00:00.
        ("America/Havana", (2025, 11, 2, 3, 59, 59), (2025, 11, 2, 4), "2025-11-02"),
        # A whole day skipped, at the date line.
        ("Pacific/Apia", (2011, 12, 30, 9, 59, 59), (2011, 12, 30, 10), "2011-12-31"),
    ],
)
def test_odd_midnights(zone, last_moment, first_moment, first_day):
    hand = Hand(*last_moment)
    clock = SystemClock(ZoneInfo(zone), time_s=hand)
    assert clock.today() < day(first_day)
    hand.to(*first_moment)
    assert clock.today() == day(first_day)


async def test_a_day_begins_when_it_is_kept_and_is_kept_once():
    hand, gate, asked = Hand(2026, 3, 10), asyncio.Event(), []
    clock = SystemClock(KOLKATA, time_s=hand)
    assert clock.today() == day("2026-03-10")

    def keep(new: int) -> asyncio.Task[None]:
        asked.append(new)
        return asyncio.get_running_loop().create_task(wait())

    async def wait() -> None:
        await gate.wait()

    clock.keep = keep
    hand.to(2026, 3, 10, 18, 30)
    assert [clock.today() for _ in range(3)] == [day("2026-03-10")] * 3
    turning = asyncio.create_task(clock.turn())
    await asyncio.sleep(0)
    assert not turning.done()
    gate.set()
    assert await turning == clock.today() == day("2026-03-11")
    assert await clock.turn() == day("2026-03-11")
    assert asked == [day("2026-03-11")]
    hand.to(2026, 3, 9)
    assert await clock.turn() == day("2026-03-11")
    hand.to(2026, 3, 20)
    assert await clock.turn() == day("2026-03-20")
    assert asked == [day("2026-03-11"), day("2026-03-20")]


async def test_a_day_that_can_not_be_kept_does_not_begin_and_is_tried_again():
    hand, asked, full = Hand(2026, 3, 10), [], True
    clock = SystemClock(KOLKATA, time_s=hand)
    clock.today()

    def keep(new: int) -> asyncio.Task[None]:
        asked.append(new)
        return asyncio.get_running_loop().create_task(write())

    async def write() -> None:
        if full:
            raise OSError("the disk is full")

    clock.keep = keep
    hand.to(2026, 3, 10, 18, 30)
    assert [await clock.turn() for _ in range(3)] == [day("2026-03-10")] * 3
    assert len(asked) == 1  # no more than one a second
    hand.s += 1
    assert await clock.turn() == day("2026-03-10")
    full = False
    hand.s += 1
    assert await clock.turn() == day("2026-03-11")
    assert len(asked) == 3


def test_the_zone_is_asked_once_a_day():
    class CountingZone(ZoneInfo):
        asked = 0

        def utcoffset(self, moment):
            CountingZone.asked += 1
            return super().utcoffset(moment)

    clock = SystemClock(CountingZone.no_cache("Asia/Kolkata"), time_s=Hand(2026, 3, 10))
    clock.today()
    asked = CountingZone.asked
    assert asked > 0
    for _ in range(100):
        clock.today()
    assert CountingZone.asked == asked


def test_the_sandbox_moves_only_when_told_and_only_ahead():
    hand = Hand(2026, 3, 10)
    clock = SandboxClock(day("2026-01-31"), time_s=hand)
    hand.to(2026, 3, 20)
    assert clock.today() == day("2026-01-31")
    clock.set(day("2026-02-01"))
    clock.set(day("2026-02-01"))
    assert clock.today() == day("2026-02-01")
    with pytest.raises(ValueError, match="never goes back"):
        clock.set(day("2026-01-31"))
    assert clock.today() == day("2026-02-01")


def test_real_time_is_milliseconds_on_both():
    hand = Hand(2026, 3, 10)
    expected = int(datetime(2026, 3, 10, tzinfo=UTC).timestamp()) * 1000
    assert SystemClock(KOLKATA, time_s=hand).now_ms() == expected
    assert SandboxClock(1, time_s=hand).now_ms() == expected
