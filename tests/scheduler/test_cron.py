from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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


@asynccontextmanager
async def alarm(work: Callable[[], Awaitable[object]]) -> AsyncIterator[Alarm]:
    """An alarm that would ring on its own only once a year: the tests ring it."""
    made = Alarm("billing", "0 0 1 1 *", ZoneInfo("Asia/Kolkata"), work)
    try:
        yield made
    finally:
        await made.close()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_ring_while_the_work_goes_on_does_nothing():
    work = Work()
    async with alarm(work) as bell:
        for _ in range(3):
            bell._ring()
            await turns()
        assert work.begun == 1
        work.go.set()
        await turns()
        assert work.ended == 1
        bell._ring()
        await turns()
        assert (work.begun, work.ended) == (2, 2)


async def test_two_rings_in_one_turn_are_one():
    work = Work()
    async with alarm(work) as bell:
        bell._ring()
        bell._ring()
        await turns()
        assert work.begun == 1


async def test_work_that_fails_is_logged_and_the_next_ring_works():
    work = Work()
    work.fails = True
    work.go.set()
    async with alarm(work) as bell:
        with capture_logs() as logs:
            bell._ring()
            await turns()
        assert [(line["log_level"], line["work"]) for line in logs] == [("error", "billing")]
        work.fails = False
        bell._ring()
        await turns()
        assert (work.begun, work.ended) == (2, 1)


async def test_closing_ends_the_work_and_the_ringing():
    work = Work()
    async with alarm(work) as bell:
        assert pending_timers(bell) == 1
        bell._ring()
        await turns()
    assert (work.begun, work.ended) == (1, 0)
    assert bell._task is not None
    assert bell._task.cancelled()
    assert pending_timers(bell) == 0
    bell._ring()  # the cron had begun to ring as the alarm was closed
    await turns()
    assert work.begun == 1


async def test_one_timer_is_set_whatever_happened():
    work = Work()
    work.go.set()
    async with alarm(work) as bell:
        for _ in range(3):
            bell._ring()
            await turns()
        assert pending_timers(bell) == 1


def pending_timers(bell: Alarm) -> int:
    """How many timers of the alarm's cron wait in the loop."""
    loop = asyncio.get_running_loop()
    timers = [handle for handle in loop._scheduled if not handle.cancelled()]
    return sum(getattr(handle._callback, "__self__", None) is bell._cron for handle in timers)
