"""The login throttle: guessing becomes slow, and nobody can lock somebody else out.

Failures are counted for an account from one address, so that the account's owner elsewhere never waits, and
for the address over all accounts, with a larger allowance, against one guess at each of many. Past the
allowance each failure doubles the delay before the next attempt, from 1 s to 60 s at most; there is no
lock. A count goes down again as time passes. All in memory and bounded: a restart forgives. Used by
http/accounts.py.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ledgerd.http.addresses import network

DELAY_MAX_S = 60
ENTRIES_MAX = 100_000
# One failure is forgiven for each whole stretch of this length since the last one.
ACCOUNT_FORGIVES_AFTER_S = 180
ADDRESS_FORGIVES_AFTER_S = 6
# Many people can sit behind one address.
ADDRESS_ALLOWANCE_FACTOR = 20


@dataclass(slots=True)
class _Count:
    failures: int = 0
    last_failed_at_s: float = 0.0
    delayed_until_s: float = 0.0


class _Counts:
    """Failures by key, the least recently seen forgotten first."""

    def __init__(self, allowance: int, forgives_after_s: int, entries_max: int) -> None:
        self._allowance = allowance
        self._forgives_after_s = forgives_after_s
        self._entries_max = entries_max
        self._counts: OrderedDict[bytes, _Count] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def delay_s(self, key: bytes, now_s: float) -> float:
        count = self._counts.get(key)
        if count is None:
            return 0.0
        remaining_s = count.delayed_until_s - now_s
        # More than the longest delay: the clock has stepped back, and nobody must wait until it catches up.
        return remaining_s if 0 < remaining_s <= DELAY_MAX_S else 0.0

    def failed(self, key: bytes, now_s: float) -> None:
        count = self._counts.setdefault(key, _Count())
        self._counts.move_to_end(key)
        quiet_s = max(now_s - count.last_failed_at_s, 0.0)
        count.failures = max(count.failures - int(quiet_s // self._forgives_after_s), 0) + 1
        count.last_failed_at_s = now_s
        if count.failures >= self._allowance:
            doublings = min(count.failures - self._allowance, 10)
            count.delayed_until_s = now_s + min(2**doublings, DELAY_MAX_S)
        if len(self._counts) > self._entries_max:
            self._counts.popitem(last=False)

    def forget(self, key: bytes) -> None:
        self._counts.pop(key, None)


class Throttle:
    """How long a login attempt has to wait. `now_s` is real time, in seconds from anywhere.

    Ask `check` before the password is looked at and again after: then of many guesses sent at once only the
    first few learn whether they were right.
    """

    def __init__(
        self, login_failures: int, now_s: Callable[[], float], entries_max: int = ENTRIES_MAX
    ) -> None:
        self._now_s = now_s
        self._accounts = _Counts(login_failures, ACCOUNT_FORGIVES_AFTER_S, entries_max)
        self._addresses = _Counts(
            login_failures * ADDRESS_ALLOWANCE_FACTOR, ADDRESS_FORGIVES_AFTER_S, entries_max
        )

    def __len__(self) -> int:
        return len(self._accounts) + len(self._addresses)

    def check(self, account_key: bytes, address: str) -> int:
        """Return the whole seconds to wait before an attempt is looked at; 0 means go ahead."""
        now_s, place = self._now_s(), network(address)
        return math.ceil(
            max(
                self._accounts.delay_s(place + account_key, now_s),
                self._addresses.delay_s(place, now_s),
            )
        )

    def failed(self, account_key: bytes, address: str) -> None:
        """Note that the password was wrong, or that there is no such account."""
        now_s, place = self._now_s(), network(address)
        self._accounts.failed(place + account_key, now_s)
        self._addresses.failed(place, now_s)

    def succeeded(self, account_key: bytes, address: str) -> None:
        """Note that the password was right.

        The address keeps its count: a login to one's own account must not pay for guesses at others.
        """
        self._accounts.forget(network(address) + account_key)
