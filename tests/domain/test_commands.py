"""Commands: whose they are (once_key), and when one repeats what is already there."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerd.domain.commands import Command, Disburse, IssueBills, Repay, payment_key, repeats
from ledgerd.domain.events import BillIssued, Event, LoanDisbursed, PaymentRecorded, Terms
from tests.domain.lives import LAW

TERMS = Terms(5_000_00, 14_00, 38, 12, "min_due", 739_252, 30, 15, 3_00)
REPAY = Repay("c:1", "t-1", amount_paise=207_00, payment_id=11, recorded_at_ms=1_000)
DISBURSE = Disburse(7, TERMS, recorded_at_ms=1_000, idempotency_key="k-1")

PAID = PaymentRecorded("old", "x", "y", 739_262, 900, 207_00, 0, 207_00, (), 4_793_00, 0, None)
LENT = LoanDisbursed(7, TERMS, recorded_at_ms=900, idempotency_key="k-1")
BILLED = BillIssued(1, 739_282, 57_00, 150_00, 0)


def with_terms(**changes: object) -> Disburse:
    return msgspec.structs.replace(DISBURSE, terms=msgspec.structs.replace(TERMS, **changes))


def test_once_keys() -> None:
    assert REPAY.once_key == payment_key("c:1", "t-1") == b"p:c:1:t-1"
    assert DISBURSE.once_key == b"a:0000000000000007:k-1"
    assert Disburse(2**63 - 1, TERMS, 0, "k").once_key == b"a:7fffffffffffffff:k"
    assert Disburse(7, TERMS, recorded_at_ms=0).once_key is None
    assert IssueBills(739_300).once_key is None


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_paise": 1},
        {"payment_id": 99},
        {"recorded_at_ms": 99},
        {"borrower_id": 7},
        {"for_bill": 3},
    ],
)
def test_a_payment_is_known_by_its_caller_and_its_id_alone(changes: dict[str, int]) -> None:
    assert msgspec.structs.replace(REPAY, **changes).once_key == REPAY.once_key


# A caller is a letter, a colon and an id without colons; the transaction id is the caller's to choose.
CALLERS = st.from_regex(r"[bc]:[0-9a-f]{1,2}", fullmatch=True)
TRANSACTION_IDS = st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True)


@given(st.tuples(CALLERS, TRANSACTION_IDS), st.tuples(CALLERS, TRANSACTION_IDS))
@LAW
def test_no_two_callers_share_a_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (payment_key(*one) == payment_key(*other)) == (one == other)


def test_keys_that_look_alike_differ() -> None:
    keys = {
        payment_key("c:1", "t"),
        payment_key("b:1", "t"),
        payment_key("c:1", "1:t"),
        payment_key("c:11", "t"),
    }
    assert len({*keys, Disburse(1, TERMS, 0, "t").once_key, Disburse(17, TERMS, 0, "t").once_key}) == 6


SAME, OTHER = 5, 6  # loans


@pytest.mark.parametrize(
    ("command", "loan_id", "owner_loan_id", "owner", "expected"),
    [
        (REPAY, SAME, SAME, PAID, True),
        (REPAY, SAME, OTHER, PAID, False),
        (REPAY, SAME, SAME, msgspec.structs.replace(PAID, amount_paise=207_01), False),
        (REPAY, SAME, OTHER, msgspec.structs.replace(PAID, amount_paise=207_01), False),
        (REPAY, SAME, SAME, LENT, False),
        (REPAY, SAME, SAME, BILLED, False),
        # only the loan and the amount count: not the guard, nor when or as what it was recorded
        (msgspec.structs.replace(REPAY, for_bill=2), SAME, SAME, PAID, True),
        (msgspec.structs.replace(REPAY, payment_id=12, recorded_at_ms=5_000), SAME, SAME, PAID, True),
        (msgspec.structs.replace(REPAY, borrower_id=7), SAME, SAME, PAID, True),
        # an application comes with a new loan id each time
        (DISBURSE, SAME, OTHER, LENT, True),
        (DISBURSE, SAME, SAME, LENT, True),
        (with_terms(amount_paise=5_000_01), SAME, OTHER, LENT, False),
        (with_terms(apr_hundredths=14_01), SAME, OTHER, LENT, False),
        (with_terms(tenure=11), SAME, OTHER, LENT, False),
        (with_terms(plan="equal_emi"), SAME, OTHER, LENT, False),
        # the body is the same; the rest of the terms is the lender's, and the day's
        (with_terms(disbursed_on=739_999), SAME, OTHER, LENT, True),
        (with_terms(daily_rate_thousandths=39), SAME, OTHER, LENT, True),
        (with_terms(cycle_days=7, due_days=3, min_due_hundredths=5_00), SAME, OTHER, LENT, True),
        (msgspec.structs.replace(DISBURSE, recorded_at_ms=5_000), SAME, OTHER, LENT, True),
        (DISBURSE, SAME, SAME, PAID, False),
        (DISBURSE, SAME, SAME, BILLED, False),
        (IssueBills(739_282), SAME, SAME, BILLED, False),
        (IssueBills(739_282), SAME, SAME, PAID, False),
    ],
)
def test_repeats(command: Command, loan_id: int, owner_loan_id: int, owner: Event, expected: bool) -> None:
    assert repeats(command, loan_id, owner_loan_id, owner) is expected
