"""Writes a sample CSV of bank transactions of made-up people with valid Aadhaar numbers; the same for the
same seed.

Used by the demo, the benches and tests.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Final

from stdnum import verhoeff

HEADER: Final = ("AADHAR ID", "Date", "Transaction_type", "Amount")
_FIRST_DAY: Final = date(2024, 1, 1)


def aadhaar_number(random: Random) -> str:
    """Make up an Aadhaar number: 2 to 9 first, and a right check digit last."""
    digits = str(random.randrange(2 * 10**10, 10**11))
    return digits + verhoeff.calc_check_digit(digits)


def write_sample(
    path: Path,
    people: int,
    seed: int,
    *,
    rows_each: int = 10,
    balances_paise: Mapping[str, int] | None = None,
) -> list[str]:
    """Write a CSV of `people` people with `rows_each` transactions each, in order of time; return their
    numbers.

    `balances_paise` forces whose history comes to which balance, by a last transaction; those are people
    besides.
    """
    random = Random(seed)  # noqa: S311 - made-up data, the same every time
    forced = dict(balances_paise or {})
    made_up: dict[str, None] = {}
    while len(made_up) < people:
        number = aadhaar_number(random)
        if number not in forced:
            made_up[number] = None
    everybody = [*forced, *made_up]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for turn in range(rows_each):
            day = _FIRST_DAY + timedelta(days=turn * 365 // rows_each)
            for number in everybody:
                kind = "CREDIT" if random.random() < 0.6 else "DEBIT"
                amount_paise = random.randrange(100, 20_000_000)
                if number in forced:
                    forced[number] -= amount_paise if kind == "CREDIT" else -amount_paise
                writer.writerow((number, day.isoformat(), kind, _rupees(amount_paise)))
        last_day = (_FIRST_DAY + timedelta(days=365)).isoformat()
        for number, missing_paise in forced.items():
            kind = "CREDIT" if missing_paise >= 0 else "DEBIT"
            writer.writerow((number, last_day, kind, _rupees(abs(missing_paise))))
    return list(made_up)


def _rupees(paise: int) -> str:
    return f"{paise // 100}.{paise % 100:02d}"
