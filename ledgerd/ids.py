"""Names for new things: 63-bit numbers that sort by the time they were made, 16 hexadecimal digits outside.

The high 42 bits are milliseconds since 2020, the low 21 are chance. One maker never gives a number twice, nor
a smaller one after a larger, also when the clock steps back. It is built once and handed around.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_EPOCH_S: Final = 1_577_836_800  # 2020-01-01 UTC
_RANDOM_BITS: Final = 21
_ID: Final = re.compile(r"[0-7][0-9a-f]{15}", re.ASCII)


class Ids:
    """A maker of ids.

    `time_s` returns Unix seconds; `random_bits(n)` returns n random bits, such as `secrets.randbits`.
    """

    def __init__(self, time_s: Callable[[], float], random_bits: Callable[[int], int]) -> None:
        self._time_s = time_s
        self._random_bits = random_bits
        self._last = 0

    def new(self) -> int:
        """Return a new id, greater than every one before."""
        now_ms = int((self._time_s() - _EPOCH_S) * 1000)
        if now_ms > self._last >> _RANDOM_BITS:
            self._last = now_ms << _RANDOM_BITS | self._random_bits(_RANDOM_BITS)
        else:
            self._last += 1
        return self._last


def format_id(number: int) -> str:
    """Show an id: 16 lower-case hexadecimal digits, which sort as the numbers do."""
    return f"{number:016x}"


def parse_id(text: str) -> int | None:
    """Read an id, or None unless the text is exactly as `format_id` writes it."""
    return int(text, 16) if _ID.fullmatch(text) else None
