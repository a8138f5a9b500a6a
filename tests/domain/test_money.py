"""Money: what is read and what is not, and each rounding against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerd.domain.money import (
    UNITS_PER_PAISA,
    daily_rate,
    divide_half_even,
    divide_up,
    format_hundredths,
    format_thousandths,
    parse_hundredths,
    parse_rupees,
    percent_half_even,
    rupees,
)
from tests.domain.lives import LAW

READ = {
    "0": 0,
    "0.0": 0,
    "0.00": 0,
    "0.01": 1,
    "0.1": 10,
    "5": 500,
    "5.0": 500,
    "5.05": 505,
    "5.5": 550,
    "007": 700,
    "207.00": 207_00,
    "5000": 5_000_00,
    "9999999999999": 9_999_999_999_999_00,
    "9999999999999.99": 9_999_999_999_999_99,
    "0000000000000.01": 1,
}

REFUSED = [
    "",
    " ",
    ".",
    ".5",
    "5.",
    "5..0",
    "5.0.0",
    "5.001",
    "0.000",
    "00000000000000",  # 14 digits
    "12345678901234",
    "12345678901234.00",
    "+5",
    "-5",
    "-0",
    "−5",
    " 5",
    "5 ",
    "\t5",
    "5\n",
    "\n5",
    "5.00\n",
    "5\r\n",
    "5\x00",
    "5\u00a0",
    "NaN",
    "nan",
    "Infinity",
    "inf",
    "1e5",
    "1E5",
    "1e999999",
    "1e-2",
    "1_000",
    "1,000",
    "1,50",
    "0x10",
    "5f",
    "5 00",
    "₹5",
    "5.0a",
    "five",
    "５",  # full-width
    "1２.00",
    "5.０",
    "٥",  # Arabic-Indic
    "५",  # Devanagari
    "²",
    "½",
    "Ⅴ",
    "五",
    "true",
    "null",
    "[5]",
]


@pytest.mark.parametrize(("text", "paise"), READ.items())
def test_amounts_that_are_read(text: str, paise: int) -> None:
    assert parse_rupees(text) == parse_hundredths(text) == paise


@pytest.mark.parametrize("text", REFUSED, ids=ascii)
def test_amounts_that_are_refused(text: str) -> None:
    assert parse_rupees(text) is None
    assert parse_hundredths(text) is None


@pytest.mark.parametrize("text", ["9" * 1_000_000, "0." + "0" * 1_000_000, "1e" + "9" * 1_000_000])
def test_an_endless_amount_is_refused_like_any_other(text: str) -> None:
    assert parse_rupees(text) is None


@pytest.mark.parametrize(
    ("paise", "text"),
    [
        (0, "0.00"),
        (1, "0.01"),
        (10, "0.10"),
        (99, "0.99"),
        (100, "1.00"),
        (207_00, "207.00"),
        (9_999_999_999_999_99, "9999999999999.99"),
    ],
)
def test_amounts_as_shown(paise: int, text: str) -> None:
    assert rupees(paise) == format_hundredths(paise) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-1, "-0.01"), (-5, "-0.05"), (-100, "-1.00"), (-207_05, "-207.05")]
)
def test_hundredths_below_nothing_have_a_sign(value: int, text: str) -> None:
    assert format_hundredths(value) == text


@given(st.integers(0, 10**15 - 1))
@LAW
def test_what_is_shown_is_read_back(paise: int) -> None:
    assert parse_rupees(rupees(paise)) == paise


@given(st.one_of(st.text(), st.text("0123456789.,-+eE_ \n٠５", max_size=8)))
@LAW
def test_what_is_read_is_that_amount_and_nothing_else_is_read(text: str) -> None:
    paise = parse_rupees(text)
    if paise is not None:
        assert text.isascii()
        assert set(text) <= set("0123456789.")
        assert Fraction(text) * 100 == paise
        assert len(text.partition(".")[0]) <= 13


@pytest.mark.parametrize(
    ("numerator", "denominator", "half_even", "up"),
    [
        (0, 7, 0, 0),
        (1, 2, 0, 1),
        (3, 2, 2, 2),
        (5, 2, 2, 3),
        (7, 2, 4, 4),
        (1, 3, 0, 1),
        (2, 3, 1, 1),
        (49, 100, 0, 1),
        (50, 100, 0, 1),
        (51, 100, 1, 1),
        (149, 100, 1, 2),
        (150, 100, 2, 2),
        (6, 3, 2, 2),
    ],
)
def test_roundings(numerator: int, denominator: int, half_even: int, up: int) -> None:
    assert divide_half_even(numerator, denominator) == half_even
    assert divide_up(numerator, denominator) == up


@given(st.integers(0, 10**30), st.one_of(st.integers(1, 12), st.integers(1, 10**20)))
@LAW
def test_roundings_are_exact(numerator: int, denominator: int) -> None:
    exact = Fraction(numerator, denominator)
    assert divide_half_even(numerator, denominator) == round(exact)  # Fraction rounds a tie to even
    assert divide_up(numerator, denominator) == ceil(exact)


@pytest.mark.parametrize(
    ("apr_hundredths", "thousandths", "shown"),
    [
        (14_00, 38, "0.038"),  # 0.03836
        (12_00, 33, "0.033"),  # 0.03288
        (24_00, 66, "0.066"),  # 0.06575
        (100_00, 274, "0.274"),  # 0.27397
        (36_50, 100, "0.100"),
        (0, 0, "0.000"),
        (18, 0, "0.000"),  # 0.000493
        (19, 1, "0.001"),  # 0.000521
        (54, 1, "0.001"),  # 0.001479
        (55, 2, "0.002"),  # 0.001507
        (365_00, 1_000, "1.000"),
    ],
)
def test_daily_rate(apr_hundredths: int, thousandths: int, shown: str) -> None:
    assert daily_rate(apr_hundredths) == thousandths
    assert format_thousandths(thousandths) == shown


@pytest.mark.parametrize(
    ("thousandths", "shown"), [(0, "0.000"), (999, "0.999"), (1_000, "1.000"), (2_000, "2.000")]
)
def test_thousandths_at_a_whole_percent(thousandths: int, shown: str) -> None:
    assert format_thousandths(thousandths) == shown


def test_every_daily_rate_is_the_yearly_one_over_365() -> None:
    for apr_hundredths in range(100_01):
        assert Fraction(daily_rate(apr_hundredths), 1000) == round(Fraction(apr_hundredths, 100) / 365, 3)


@pytest.mark.parametrize(
    ("amount_paise", "percent_hundredths", "expected"),
    [
        (5_000_00, 3_00, 150_00),
        (4_848_10, 3_00, 145_44),  # 145.443
        (16, 3_00, 0),  # 0.48
        (17, 3_00, 1),  # 0.51
        (50, 3_00, 2),  # 1.5
        (150, 3_00, 4),  # 4.5
        (10, 5_00, 0),  # 0.5
        (30, 5_00, 2),  # 1.5
        (1, 100_00, 1),
        (12_345, 0, 0),
    ],
)
def test_percentages(amount_paise: int, percent_hundredths: int, expected: int) -> None:
    assert percent_half_even(amount_paise, percent_hundredths) == expected


def test_a_day_of_interest_is_whole_units() -> None:
    """One day on 5,000.00 at 0.038 % is 1.90; on one paisa 38 units, 0.00038 paise."""
    assert 5_000_00 * daily_rate(14_00) == 190 * UNITS_PER_PAISA
    assert Fraction(1 * daily_rate(14_00), UNITS_PER_PAISA) == Fraction("0.00038")
