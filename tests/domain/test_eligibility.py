"""Who may borrow: each rule at its limit, and all that fail at once."""

from __future__ import annotations

import pytest

from ledgerd.domain.eligibility import LendingRules, Reason, reasons_against

RULES = LendingRules(min_credit_score=450, min_annual_income_paise=150_000_00, max_amount_paise=5_000_00)

LOW_SCORE = Reason("credit-score-too-low", required=450, actual=449)
LOW_INCOME = Reason("income-too-low", required=150_000_00, actual=149_999_99)
HIGH_AMOUNT = Reason("amount-too-high", required=5_000_00, actual=5_000_01)


@pytest.mark.parametrize(
    ("credit_score", "annual_income_paise", "amount_paise", "reasons"),
    [
        (450, 150_000_00, 5_000_00, []),
        (900, 10**15, 1, []),
        (449, 150_000_00, 5_000_00, [LOW_SCORE]),
        (450, 149_999_99, 5_000_00, [LOW_INCOME]),
        (450, 150_000_00, 5_000_01, [HIGH_AMOUNT]),
        (449, 149_999_99, 5_000_00, [LOW_SCORE, LOW_INCOME]),
        (449, 150_000_00, 5_000_01, [LOW_SCORE, HIGH_AMOUNT]),
        (450, 149_999_99, 5_000_01, [LOW_INCOME, HIGH_AMOUNT]),
        (449, 149_999_99, 5_000_01, [LOW_SCORE, LOW_INCOME, HIGH_AMOUNT]),
    ],
)
def test_reasons(
    credit_score: int, annual_income_paise: int, amount_paise: int, reasons: list[Reason]
) -> None:
    assert reasons_against(RULES, credit_score, annual_income_paise, amount_paise) == reasons


def test_the_limits_are_the_configured_ones() -> None:
    rules = LendingRules(min_credit_score=0, min_annual_income_paise=0, max_amount_paise=1)
    assert reasons_against(rules, 0, 0, 1) == []
    assert reasons_against(rules, 0, 0, 2) == [Reason("amount-too-high", 1, 2)]
