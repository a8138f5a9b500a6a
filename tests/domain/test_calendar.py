"""Business dates: one form in and out, and day numbers between."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerd.domain.calendar import format_day, parse_day
from tests.domain.lives import LAW


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("0001-01-01", 1),
        ("0999-12-31", date(999, 12, 31).toordinal()),
        ("1970-01-01", 719_163),
        ("2024-02-29", 738_945),
        ("2025-01-31", date(2025, 1, 31).toordinal()),
        ("9999-12-31", 3_652_059),
    ],
)
def test_dates(text: str, day: int) -> None:
    assert parse_day(text) == day
    assert format_day(day) == text


REFUSED = [
    "",
    "2025-02-29",
    "1900-02-29",
    "2025-02-30",
    "2025-13-01",
    "2025-00-10",
    "2025-01-00",
    "2025-01-32",
    "0000-01-01",
    "10000-01-01",
    "2025-1-1",
    "25-01-01",
    "20250101",  # ISO 8601, yet not the form
    "2025-W01-1",
    "2025-001",
    "2025/01/01",
    "01-01-2025",
    "2025-01-01T00:00:00",
    "2025-01-01Z",
    "2025-01-01 ",
    " 2025-01-01",
    "2025-01-01\n",
    "-025-01-01",
    "+2025-01-01",
    "２０２５-01-01",
    "२०२५-०१-०१",
    "2025‐01‐01",
    "today",
]


@pytest.mark.parametrize("text", REFUSED, ids=ascii)
def test_what_is_no_date(text: str) -> None:
    assert parse_day(text) is None


@given(st.dates())
@LAW
def test_dates_go_round(day: date) -> None:
    assert parse_day(day.isoformat()) == day.toordinal()
    assert format_day(day.toordinal()) == day.isoformat()
