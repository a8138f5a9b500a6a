from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from structlog.testing import capture_logs

from ledgerd.scheduler.cron import Alarm, check_cron


@pytest.mark.parametrize(
    "line", ["5 0 * * *", "*/5 * * * *", "0 0 29 2 *", "0 0 1 1 *", "0 0 * * MON-FRI", "1,2 3-4 */5 JAN 6"]
)
def test_good_lines(line: str):
    assert check_cron(line) is None


@pytest.mark.parametrize(
    "line",
    [
        *("", "5 0 * *", "0 5 0 * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "x * * * *"),
        *("*/0 * * * *", "5-1 * * * *", "* * * * 8", "@daily", "0 0 30 2 *"),
    ],
)
def test_bad_lines_are_explained_on_one_line(line: str):
    wrong = check_cron(line)
    assert wrong
    assert "\n" not in wrong


KOLKATA = ZoneInfo("Asia/Kolkata")
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


class Hand:
    """The hand of the wall clock, which the tests move. It begins on the eve of 11 March, at 23:30."""

    def __init__(self) -> None:
        self.s = datetime(2026, 3, 10, 23, 30, tzinfo=KOLKATA).timestamp()

    def __call__(self) -> float:
        return self.s

    def to(self, *moment: int) -> None:
        self.s = datetime(*moment, tzinfo=KOLKATA).timestamp()


class Work:
    """Work that goes on until it is let go, and fails when it is told to."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.fails = False
        self.go = asyncio.Event()

    async def __call__(self) -> None:
        self.begun += 1
        await self.go.wait()
        if self.fails:
            raise RuntimeError("not tonight")
        self.ended += 1


class Bell:
    """An alarm, its work and its clock. The tests have it look, as each minute does."""

    def __init__(self, line: str, *, held: bool) -> None:
        self.hand = Hand()
        self.work = Work()
        if not held:
            self.work.go.set()
        self.alarm = Alarm("billing", line, KOLKATA, self.work, self.hand)

    async def look(self) -> int:
        """How often it has rung by now."""
        self.alarm.look()
        for _ in range(5):
            await asyncio.sleep(0)
        return self.work.begun

    @property
    def timers(self) -> int:
        """How many timers of the alarm's cron wait in the loop."""
        loop = asyncio.get_running_loop()
        timers = [handle for handle in loop._scheduled if not handle.cancelled()]
        return sum(getattr(handle._callback, "__self__", None) is self.alarm._cron for handle in timers)


@asynccontextmanager
async def bell(line: str = "5 0 * * *", *, held: bool = False) -> AsyncIterator[Bell]:
    made = Bell(line, held=held)
    try:
        yield made
    finally:
        await made.alarm.close()


# When it rings -----------------------------------------------------------------------------------


async def test_it_rings_once_for_each_time():
    async with bell() as rung:
        assert await rung.look() == 0
        for day in (11, 12, 13):
            rung.hand.to(2026, 3, day, 0, 4, 59)
            assert await rung.look() == day - 11
            for second in (0, 1, 59):
                rung.hand.to(2026, 3, day, 0, 5, second)
                assert await rung.look() == day - 10


async def test_times_are_those_of_the_zone():
    async with bell() as rung:
        rung.hand.s = datetime(2026, 3, 10, 18, 34, 59, tzinfo=UTC).timestamp()
        assert await rung.look() == 0
        rung.hand.s = datetime(2026, 3, 10, 18, 35, tzinfo=UTC).timestamp()
        assert await rung.look() == 1


@pytest.mark.parametrize("hours", [1, 9, 24 * 3 + 1])
async def test_after_a_sleep_or_a_step_ahead_it_rings_at_the_next_look_once(hours: int):
    async with bell() as rung:
        rung.hand.s += hours * HOUR_S
        assert await rung.look() == 1
        assert await rung.look() == 1
        rung.hand.s += DAY_S
        assert await rung.look() == 2


async def test_a_clock_that_is_set_back_a_little_brings_no_time_twice():
    async with bell() as rung:
        rung.hand.to(2026, 3, 11, 0, 5)
        assert await rung.look() == 1
        rung.hand.to(2026, 3, 10, 23, 0)
        assert await rung.look() == 1
        rung.hand.to(2026, 3, 11, 0, 5)
        assert await rung.look() == 1
        rung.hand.to(2026, 3, 12, 0, 5)
        assert await rung.look() == 2


async def test_a_clock_that_was_a_year_ahead_is_followed_when_it_is_put_right():
    async with bell() as rung:
        rung.hand.to(2027, 3, 11, 12)
        assert await rung.look() == 1
        rung.hand.to(2026, 3, 11, 0, 4)
        assert await rung.look() == 1
        rung.hand.to(2026, 3, 11, 0, 5)
        assert await rung.look() == 2


async def test_times_that_pass_while_the_work_goes_on_are_one_ring_after_it():
    async with bell("*/5 * * * *", held=True) as rung:
        for _ in range(4):
            rung.hand.s += 300
            assert await rung.look() == 1
        rung.work.go.set()
        await asyncio.sleep(0)
        assert await rung.look() == 2
        assert await rung.look() == 2
        assert rung.work.ended == 2


async def test_two_looks_in_one_turn_are_one_ring():
    async with bell() as rung:
        rung.hand.s += DAY_S
        rung.alarm.look()
        assert await rung.look() == 1


async def test_work_that_fails_is_logged_and_the_next_time_rings():
    async with bell() as rung:
        rung.work.fails = True
        rung.hand.s += DAY_S
        with capture_logs() as logs:
            await rung.look()
        assert [(line["log_level"], line["work"]) for line in logs] == [("error", "billing")]
        rung.work.fails = False
        rung.hand.s += DAY_S
        assert await rung.look() == 2
        assert rung.work.ended == 1


# The timer ---------------------------------------------------------------------------------------


async def test_one_timer_is_set_whatever_happened_and_for_a_minute_at_most():
    loop = asyncio.get_running_loop()
    async with bell("0 0 1 1 *") as rung:
        for _ in range(3):
            assert rung.timers == 1
            timer = rung.alarm._cron.handle
            assert timer.when() - loop.time() <= 60
            rung.hand.s += 400 * DAY_S
            await rung.look()
            assert timer.cancelled()  # each look sets it anew
        assert rung.work.begun == 3


async def test_the_timer_has_the_alarm_look():
    async with bell() as rung:
        rung.hand.s += DAY_S
        rung.alarm._cron.call_next()  # what the timer calls
        async with asyncio.timeout(20):
            while not rung.work.ended:  # noqa: ASYNC110 - aiocron tells nobody when it has called
                await asyncio.sleep(0)
        assert rung.timers == 1


async def test_closing_ends_the_work_and_the_ringing():
    async with bell(held=True) as rung:
        rung.hand.s += DAY_S
        await rung.look()
    assert (rung.work.begun, rung.work.ended) == (1, 0)
    assert rung.alarm._task is not None
    assert rung.alarm._task.cancelled()
    assert rung.timers == 0
    rung.hand.s += DAY_S
    assert await rung.look() == 1  # the timer had fired as the alarm was closed
    assert rung.timers == 0
