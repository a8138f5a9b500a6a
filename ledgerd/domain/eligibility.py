"""Who may borrow: the lender's three rules, all that fail named at once."""

from typing import Literal

import msgspec


class LendingRules(msgspec.Struct, frozen=True):
    """The configured limits."""

    min_credit_score: int
    min_annual_income_paise: int
    max_amount_paise: int


class Reason(msgspec.Struct, frozen=True):
    """One rule that the application fails; the units are those of the rule (points or paise)."""

    code: Literal["credit-score-too-low", "income-too-low", "amount-too-high"]
    required: int
    actual: int


def reasons_against(
    rules: LendingRules, credit_score: int, annual_income_paise: int, amount_paise: int
) -> list[Reason]:
    """Return every rule that speaks against the loan; an empty list means eligible."""
    reasons = []
    if credit_score < rules.min_credit_score:
        reasons.append(Reason("credit-score-too-low", rules.min_credit_score, credit_score))
    if annual_income_paise < rules.min_annual_income_paise:
        reasons.append(Reason("income-too-low", rules.min_annual_income_paise, annual_income_paise))
    if amount_paise > rules.max_amount_paise:
        reasons.append(Reason("amount-too-high", rules.max_amount_paise, amount_paise))
    return reasons
