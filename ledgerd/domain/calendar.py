"""Business dates as day numbers (proleptic Gregorian ordinals): day arithmetic is integer arithmetic."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Final

_ISO: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


@lru_cache(maxsize=4096)
def format_day(day: int) -> str:
    """Show a day number as YYYY-MM-DD."""
    return date.fromordinal(day).isoformat()


def parse_day(text: str) -> int | None:
    """Read YYYY-MM-DD as a day number, or None when it is not a date in exactly that form."""
    if _ISO.fullmatch(text) is None:
        return None
    try:
        return date.fromisoformat(text).toordinal()
    except ValueError:
        return None
