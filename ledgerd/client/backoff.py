"""How long to wait before the next attempt, and when to give up."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from random import Random, SystemRandom

from ledgerd.client.errors import Failed, Unavailable


@dataclass(frozen=True)
class Patience:
    """How attempts are spaced: pauses double from `first_pause_s` to `pause_max_s`, and a random half to the
    whole of one is waited, on top of what Retry-After asks for. No attempt begins later than `retry_for_s`
    after the first failure.
    """

    retry_for_s: float = 120.0
    first_pause_s: float = 0.1
    pause_max_s: float = 10.0
    random: Random = field(default_factory=SystemRandom)


class Backoff:
    """The attempts at one thing, `what`."""

    def __init__(self, patience: Patience, what: str, gives_up: type[Unavailable] = Unavailable) -> None:
        self._patience = patience
        self._what = what
        self._gives_up = gives_up
        self._began_s = time.monotonic()
        self._failures = 0

    def progressed(self) -> None:
        """Begin anew: something of it is done."""
        self._failures = 0

    async def pause(self, failed: Failed) -> None:
        """Wait for the next attempt; raise what `gives_up` names when there is no time for another."""
        now_s = time.monotonic()
        if self._failures == 0:
            self._began_s = now_s
        pause_s = self.next_pause_s(failed.retry_after_s)
        if now_s + pause_s > self._began_s + self._patience.retry_for_s:
            raise self._gives_up(
                f"{self._what}: no final answer in {self._failures} attempts; the last: {failed}"
            ) from failed
        await asyncio.sleep(pause_s)

    def next_pause_s(self, retry_after_s: float = 0.0) -> float:
        """Count a failure and return the pause after it."""
        patience = self._patience
        longest_s = min(patience.pause_max_s, patience.first_pause_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return retry_after_s + longest_s * patience.random.uniform(0.5, 1.0)
