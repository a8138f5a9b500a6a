"""The credit score: a pure function of the balance of a borrower's bank history.

Used by storage/transactions.py, which sums the balances, and by `verify`, which sums them again.
"""

import msgspec


class ScoreRules(msgspec.Struct, frozen=True):
    """The configured scale: `min_score` up to `base_paise`, then `step_points` for every full `step_paise`
    above it.
    """

    base_paise: int
    step_paise: int
    step_points: int
    min_score: int
    max_score: int


def score(balance_paise: int, rules: ScoreRules) -> int:
    """Return the score of a balance (credits less debits, perhaps negative), within min_score..max_score."""
    full_steps = max(0, balance_paise - rules.base_paise) // rules.step_paise
    return min(rules.max_score, rules.min_score + rules.step_points * full_steps)
