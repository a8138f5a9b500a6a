"""The score: the contract's figures, and its laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerd.domain.scoring import ScoreRules, score

RULES = ScoreRules(base_paise=10_000_00, step_paise=15_000_00, step_points=10, min_score=300, max_score=900)


@pytest.mark.parametrize(
    ("balance_paise", "expected"),
    [
        (568_450_00, 670),
        (24_999_99, 300),
        (25_000_00, 310),
        (234_999_00, 440),
        (234_999_99, 440),
        (235_000_00, 450),
        (-5_00, 300),
        (-(10**20), 300),
        (0, 300),
        (10_000_00, 300),
        (909_999_99, 890),
        (910_000_00, 900),
        (10**20, 900),
    ],
)
def test_the_figures_of_the_contract(balance_paise: int, expected: int) -> None:
    assert score(balance_paise, RULES) == expected


def test_everything_is_configurable() -> None:
    rules = ScoreRules(base_paise=-100, step_paise=7, step_points=3, min_score=0, max_score=10)
    assert [score(balance, rules) for balance in (-101, -100, -94, -93, -86, -79, -72)] == [
        0,
        0,
        0,
        3,
        6,
        9,
        10,
    ]
    assert score(10**9, ScoreRules(0, 1, 0, 300, 900)) == 300
    assert score(-1, ScoreRules(0, 1, 10, 300, 900)) == 300  # below the base by a step, and no step is gone


@given(st.integers(-(10**15), 10**15), st.integers(0, 10**12))
def test_more_money_never_scores_lower_and_steps_are_whole(balance_paise: int, more_paise: int) -> None:
    low, high = score(balance_paise, RULES), score(balance_paise + more_paise, RULES)
    assert 300 <= low <= high <= 900
    assert low % 10 == 0
    if more_paise >= RULES.step_paise and balance_paise >= RULES.base_paise and high < 900:
        assert high > low
