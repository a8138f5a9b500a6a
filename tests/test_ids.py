"""Ids: unique, increasing, and read back exactly as they were written."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerd.ids import Ids, format_id, parse_id

NOW_S = 1_770_000_000.0


def test_ids_increase_whatever_the_clock_does():
    chance = random.Random(7)
    now_s = NOW_S

    def time_s():
        nonlocal now_s
        now_s += chance.choice([0, 0, 0.0004, 0.001, 0.01, -5, 5])
        return now_s

    ids = Ids(time_s, chance.getrandbits)
    made = [ids.new() for _ in range(20_000)]
    assert all(earlier < later for earlier, later in itertools.pairwise(made))
    assert all(0 < number < 2**63 for number in made)


def test_one_millisecond_never_runs_out():
    ids = Ids(lambda: NOW_S, lambda bits: 2**bits - 1)
    made = [ids.new() for _ in range(5)]
    assert made == list(range(made[0], made[0] + 5))


def test_an_id_says_when_it_was_made():
    number = Ids(lambda: NOW_S, lambda bits: 0).new()
    assert number >> 21 == (int(NOW_S) - 1_577_836_800) * 1000
    assert number & (2**21 - 1) == 0


def test_two_makers_at_one_moment_differ_by_chance():
    chance = random.Random(3)
    first, second = (Ids(lambda: NOW_S, chance.getrandbits).new() for _ in range(2))
    assert first != second
    assert first >> 21 == second >> 21


def test_ids_outlast_the_century():
    number = Ids(lambda: 4_102_444_800.0 + 50 * 31_556_952, lambda bits: 2**bits - 1).new()
    assert number < 2**63


@given(st.integers(0, 2**63 - 1))
def test_a_written_id_is_read_back(number):
    text = format_id(number)
    assert len(text) == 16
    assert parse_id(text) == number


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_written_ids_sort_as_the_numbers(one, other):
    assert (one < other) == (format_id(one) < format_id(other))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "00000000000000f",
        "00000000000000fff",
        "000000000000000F",
        "8000000000000000",
        "ffffffffffffffff",
        " 00000000000000f",
        "00000000000000f\n",
        "0x0000000000000f",
        "+00000000000000f",
        "0000_0000_0000_f",
        "00000000000000१f",
        "0000000000000000\n",
    ],
)
def test_anything_else_is_refused(text):
    assert parse_id(text) is None
