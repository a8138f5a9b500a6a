"""Alarm clocks: the only module that imports aiocron.

aiocron overlaps runs, bursts after a blocked loop, forgets everything at a restart and samples the wall clock
once. So it only has an alarm look at the wall clock each minute, and is set anew at each look: a step of the
clock or a sleep of the host is noticed within a minute. An alarm says "look what is to be done", no more:
what was missed is found by the work itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import aiocron
from cronsim import CronSim, CronSimError

from ledgerd.observe import log

EACH_MINUTE = "* * * * *"
NO_TIME_TWICE_S = 3 * 3600


def check_cron(line: str) -> str | None:
    """Return what is wrong with a cron line of five fields, or None."""
    if len(line.split()) != 5:
        return "needs five fields: minute hour day month weekday"
    try:
        next(CronSim(line, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        return str(error) or "never comes"
    return None


class Alarm:
    """Calls `work` at the times of a cron line in a timezone: once for each time, one call at a time. Times
    that pass while the work goes on, or while the host sleeps, are one ring afterwards. Made inside the
    running loop.

    As cron has it: a clock that is set back by up to three hours brings no time twice, and one that is set
    back further was wrong before and is followed at once.
    """

    def __init__(
        self,
        name: str,
        line: str,
        timezone: ZoneInfo,
        work: Callable[[], Awaitable[object]],
        time_s: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._line = line
        self._timezone = timezone
        self._work = work
        self._time_s = time_s
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._arm(time_s())
        self._cron = aiocron.Cron(
            EACH_MINUTE, self.look, start=False, loop=asyncio.get_running_loop(), tz=timezone
        )
        self._cron.start()

    def _arm(self, now_s: float) -> None:
        self._armed_at_s = now_s
        self._rings_at_s = next(
            CronSim(self._line, datetime.fromtimestamp(now_s, self._timezone))
        ).timestamp()

    def look(self) -> None:
        """Ring if it is time."""
        if self._closed:
            return
        now_s = self._time_s()
        if now_s < self._armed_at_s - NO_TIME_TWICE_S:
            self._arm(now_s)
        if now_s >= self._rings_at_s and (self._task is None or self._task.done()):
            self._arm(now_s)
            self._task = asyncio.get_running_loop().create_task(self._run())
        self._cron.start()

    async def _run(self) -> None:
        try:
            await self._work()
        except Exception:  # noqa: BLE001 - tonight's failure is no reason not to ring tomorrow
            log.exception("scheduled work failed", work=self._name)

    async def close(self) -> None:
        """Stop ringing, and end what an alarm began."""
        self._closed = True  # aiocron calls look a turn after its timer fired: that may be still to come
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._cron.stop()
