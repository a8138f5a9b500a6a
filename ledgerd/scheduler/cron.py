"""Alarm clocks: the only module that imports aiocron.

aiocron overlaps runs, bursts after a blocked loop, forgets everything at a restart and samples the wall clock
once. So an alarm here only says "look what is to be done": it skips a tick while the last one's work goes on,
and is set anew after each, from the wall clock as it then is. What was missed is found by the work itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import aiocron
from cronsim import CronSim, CronSimError

from ledgerd.observe import log


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
    """Calls `work` at the times of a cron line in a timezone, one call at a time. Made inside the running
    loop.
    """

    def __init__(
        self, name: str, line: str, timezone: ZoneInfo, work: Callable[[], Awaitable[object]]
    ) -> None:
        self._name = name
        self._work = work
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._cron = aiocron.Cron(line, self._ring, start=False, loop=asyncio.get_running_loop(), tz=timezone)
        self._cron.start()

    def _ring(self) -> None:
        if not self._closed and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._work()
        except Exception:  # noqa: BLE001 - tonight's failure is no reason not to ring tomorrow
            log.exception("scheduled work failed", work=self._name)
        finally:
            self._cron.start()

    async def close(self) -> None:
        """Stop ringing, and end what an alarm began."""
        self._closed = True  # aiocron calls _ring a turn after its timer fired: that may be still to come
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._cron.stop()
