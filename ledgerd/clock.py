"""Which day it is: the business date, which rules live by, and real time, for records and token lifetimes.

One clock is built at the start and handed to whoever needs a date. Its date never goes back. A day is a day
number (`date.toordinal()`); real time is Unix milliseconds, in the sandbox too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date, datetime
from datetime import time as time_of_day
from typing import Protocol
from zoneinfo import ZoneInfo


class Clock(Protocol):
    """What the service asks about time."""

    def today(self) -> int:
        """Return the business date as a day number; never less than before."""

    def now_ms(self) -> int:
        """Return real time in Unix milliseconds; it may step as the system's clock does."""


class SystemClock:
    """The real date in a timezone.

    `floor_day` is the latest day that the database has seen: the date begins no earlier, and waits there when
    the system's clock has been set back. `on_new_day` is called with each day that `today` begins.
    """

    def __init__(
        self, timezone: ZoneInfo, floor_day: int = 0, time_s: Callable[[], float] = time.time
    ) -> None:
        self._timezone = timezone
        self._time_s = time_s
        self._day = floor_day
        self._day_ends_s = 0.0
        self.on_new_day: Callable[[int], object] | None = None

    def today(self) -> int:
        """Return the business date; a comparison, but for the first call of a day."""
        now_s = self._time_s()
        if now_s >= self._day_ends_s:
            self._begin_day(now_s)
        return self._day

    def now_ms(self) -> int:
        """Return real time in Unix milliseconds."""
        return int(self._time_s() * 1000)

    def _begin_day(self, now_s: float) -> None:
        before = self._day
        self._day = max(before, datetime.fromtimestamp(now_s, self._timezone).toordinal())
        # Where midnight is skipped, this is the moment of the skip; where it comes twice, the first.
        midnight = datetime.combine(date.fromordinal(self._day + 1), time_of_day(), self._timezone)
        self._day_ends_s = midnight.timestamp()
        if self._day > before and self.on_new_day is not None:
            self.on_new_day(self._day)


class SandboxClock:
    """A date that moves only when it is told to."""

    def __init__(self, day: int, time_s: Callable[[], float] = time.time) -> None:
        self._day = day
        self._time_s = time_s

    def today(self) -> int:
        """Return the business date."""
        return self._day

    def now_ms(self) -> int:
        """Return real time in Unix milliseconds."""
        return int(self._time_s() * 1000)

    def set(self, day: int) -> None:
        """Move to `day`; raises ValueError when that is in the past."""
        if day < self._day:
            raise ValueError(f"the date never goes back: {day} is before {self._day}")
        self._day = day
