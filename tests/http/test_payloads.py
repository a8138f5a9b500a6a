"""The Structs of the wire, and that no answer can show what it may not."""

from __future__ import annotations

import msgspec
import pytest

from ledgerd.http import payloads, people_payloads
from ledgerd.http.routes import ROUTES

BODIES = sorted({route.body for route in ROUTES if route.body}, key=lambda kind: kind.__name__)
ANSWERS = sorted(
    {answer for route in ROUTES for answer in route.answers.values() if isinstance(answer, type)},
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.__name__)
def test_a_body_refuses_what_it_does_not_know(kind):
    assert issubclass(kind, payloads.In)
    with pytest.raises(msgspec.ValidationError, match="unknown field `unheard-of`"):
        msgspec.json.decode(b'{"unheard-of": 1}', type=kind)


def test_money_comes_in_as_the_literal_that_was_sent():
    """A parsed float would have lost what the money rule looks at."""
    for kind, field in (
        (payloads.MakePayment, "amount"),
        (payloads.ApplyLoan, "amount"),
        (payloads.ApplyLoan, "interest_rate"),
        (people_payloads.RegisterUser, "annual_income"),
    ):
        names = {each.name: each.type for each in msgspec.inspect.type_info(kind).fields}
        assert isinstance(
            names[field].type if hasattr(names[field], "type") else names[field], msgspec.inspect.RawType
        )


def test_money_goes_out_as_text():
    """No field of an answer is a number with a fraction, but for seconds."""
    floats = {
        (kind.__name__, field.name)
        for kind in ANSWERS
        for field in msgspec.inspect.type_info(kind).fields
        if "FloatType" in repr(field.type)
    }
    assert floats <= {
        ("BillingRunShown", "seconds"),
        ("ClockAdvanced", "billing_runs"),
        ("BillingRunList", "billing_runs"),
    }


def test_a_summary_is_a_loan_without_its_schedule():
    fields = payloads.LoanShown.__struct_fields__
    assert (*payloads.LoanSummary.__struct_fields__, "emi_schedule") == fields


def test_a_problem_shows_only_the_members_that_it_has():
    shown = msgspec.to_builtins(payloads.ProblemShown("/problems/x", "X", 400, "x"))
    assert set(shown) == {"type", "title", "status", "detail"}
