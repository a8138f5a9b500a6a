"""Every reader of what strangers send, by chance and at its worst; `make fuzz` tries more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.fuzz.targets import SECONDS_MAX, TARGETS, Target, TooSlow, quickly

EXAMPLES = {"large csv": 10}
by_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@by_target
def test_whatever_comes_is_read_or_refused(target: Target):
    @settings(max_examples=EXAMPLES.get(target.name, 150), deadline=None)
    @given(target.inputs)
    def holds(given_input):
        target.holds(given_input)

    holds()


@by_target
def test_the_worst_of_full_size_costs_little(target: Target):
    for worst in target.worst:
        target.holds(worst)


def test_what_takes_long_is_noticed():
    def squares(count: int) -> int:
        return sum(number in range(count) for number in map(str, range(count)))

    assert quickly(squares, 10) == 0
    with pytest.raises(TooSlow):
        quickly(squares, 3_000)
    assert SECONDS_MAX <= 0.05
