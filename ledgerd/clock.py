"""Which day it is: the business date, which rules live by, and real time, for records and token lifetimes.

One clock is built at the start and handed to whoever needs a date. Its date never goes back. A day is a day
number (`date.toordinal()`); real time is Unix milliseconds, in the sandbox too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import date, datetime
from datetime import time as time_of_day
from functools import partial
from typing import Final, Protocol
from zoneinfo import ZoneInfo

AGAIN_S: Final = 1.0  # until a day that could not be kept is tried again


class Clock(Protocol):
    """What the service asks about time."""

    def today(self) -> int:
        """Return the business date as a day number; never less than before."""

    async def turn(self) -> int:
        """Return the business date, and where a new one is due wait for it first."""

    def now_ms(self) -> int:
        """Return real time in Unix milliseconds; it may step as the system's clock does."""


class SystemClock:
    """The real date in a timezone.

    `floor_day` is the latest day that the database has seen: the date begins no earlier, and waits there when
    the system's clock has been set back. `keep`, where there is one, makes a new day durable: it begins when
    that is done, so that nobody has seen a day which a restart knows nothing of.
    """

    def __init__(
        self, timezone: ZoneInfo, floor_day: int = 0, time_s: Callable[[], float] = time.time
    ) -> None:
        self._timezone = timezone
        self._time_s = time_s
        self._day = floor_day
        self._day_ends_s = 0.0
        self._turning: asyncio.Task[None] | None = None
        self._failed_at_s = -AGAIN_S
        self.keep: Callable[[int], asyncio.Task[None]] | None = None

    def today(self) -> int:
        """Return the business date; a comparison, but at the turn of a day."""
        now_s = self._time_s()
        if now_s >= self._day_ends_s:
            self._look(now_s)
        return self._day

    async def turn(self) -> int:
        """Return the business date, after the turn to it that is due."""
        self.today()
        if self._turning is not None:
            await asyncio.wait([self._turning])
        return self.today()

    def now_ms(self) -> int:
        """Return real time in Unix milliseconds."""
        return int(self._time_s() * 1000)

    def _look(self, now_s: float) -> None:
        day = max(self._day, datetime.fromtimestamp(now_s, self._timezone).toordinal())
        if day == self._day or self.keep is None:
            self._begin(day)
        elif self._turning is None and abs(now_s - self._failed_at_s) >= AGAIN_S:
            self._turning = self.keep(day)
            self._turning.add_done_callback(partial(self._kept, day))

    def _kept(self, day: int, task: asyncio.Task[None]) -> None:
        self._turning = None
        if task.cancelled() or task.exception() is not None:
            self._failed_at_s = self._time_s()
        else:
            self._begin(day)

    def _begin(self, day: int) -> None:
        self._day = day
        # Where midnight is skipped, this is the moment of the skip; where it comes twice, the first.
        midnight = datetime.combine(date.fromordinal(day + 1), time_of_day(), self._timezone)
        self._day_ends_s = midnight.timestamp()


class SandboxClock:
    """A date that moves only when it is told to."""

    def __init__(self, day: int, time_s: Callable[[], float] = time.time) -> None:
        self._day = day
        self._time_s = time_s

    def today(self) -> int:
        """Return the business date."""
        return self._day

    async def turn(self) -> int:
        """Return the business date: it moves by `set` alone."""
        return self._day

    def now_ms(self) -> int:
        """Return real time in Unix milliseconds."""
        return int(self._time_s() * 1000)

    def set(self, day: int) -> None:
        """Move to `day`; raises ValueError when that is in the past."""
        if day < self._day:
            raise ValueError(f"the date never goes back: {day} is before {self._day}")
        self._day = day
