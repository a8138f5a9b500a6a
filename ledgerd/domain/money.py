"""Exact money: whole paise inside, rupee strings outside, and every rounding by its name.

Amounts are `int` paise; a rate is hundredths of a percent a year (APR) or thousandths of a percent a day.
Interest accrues in units of 1/100,000 paise (`UNITS_PER_PAISA`), in which one day's interest is always a
whole number: principal_paise x daily_rate_thousandths. No float and no Decimal appears: both accept or lose
what money must not.
"""

from __future__ import annotations

import re
from typing import Final

UNITS_PER_PAISA: Final = 100_000

_PAISE: Final = tuple(f".{paise:02d}" for paise in range(100))  # a receipt shows nine amounts
_DECIMAL: Final = re.compile(r"([0-9]{1,13})(?:\.([0-9]{1,2}))?", re.ASCII)


def parse_hundredths(text: str) -> int | None:
    """Read a decimal with at most two places as hundredths, or None unless it matches
    `[0-9]{1,13}(.[0-9]{1,2})?`.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return None
    whole, fraction = match.groups("00")
    return int(whole + fraction if len(fraction) == 2 else f"{whole}{fraction}0")


def parse_rupees(text: str) -> int | None:
    """Read rupees ("207", "207.5", "207.00") as paise, or None when the text is anything else."""
    return parse_hundredths(text)


def format_hundredths(value: int) -> str:
    """Show hundredths as a decimal with two places: 20700 -> "207.00", -5 -> "-0.05"."""
    sign = "-" if value < 0 else ""
    value = abs(value)
    return f"{sign}{value // 100}.{value % 100:02d}"


def rupees(paise: int) -> str:
    """Show paise as rupees: 20700 -> "207.00". Never negative: nothing here owes the borrower."""
    return f"{paise // 100}{_PAISE[paise % 100]}"


def format_thousandths(value: int) -> str:
    """Show thousandths as a decimal with three places: 38 -> "0.038"."""
    return f"{value // 1000}.{value % 1000:03d}"


def divide_half_even(numerator: int, denominator: int) -> int:
    """Divide non-negative integers, rounding a tie to the even neighbour: 1/2 -> 0, 3/2 -> 2."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient % 2 == 1):
        return quotient + 1
    return quotient


def divide_up(numerator: int, denominator: int) -> int:
    """Divide non-negative integers, rounding up."""
    return -(-numerator // denominator)


def daily_rate(apr_hundredths: int) -> int:
    """Return round(apr / 365, 3) half-even, in thousandths of a percent a day: 14.00 % -> 38."""
    return divide_half_even(apr_hundredths * 10, 365)


def percent_half_even(amount_paise: int, percent_hundredths: int) -> int:
    """Return a percentage of an amount in paise, half-even: 3.00 % of 16 paise -> 0, of 50 paise -> 2."""
    return divide_half_even(amount_paise * percent_hundredths, 10_000)
