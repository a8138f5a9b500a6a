from __future__ import annotations

import pytest

from ledgerd.http.console.forms import body_of, refused
from ledgerd.http.payloads import ApplyLoan, MakePayment
from ledgerd.http.problems import Problem


def test_a_form_s_text_becomes_a_body():
    body = body_of(MakePayment, loan_id="x", amount="207.00", transaction_id="t")
    assert (body.loan_id, bytes(body.amount), body.transaction_id) == ("x", b'"207.00"', "t")


def test_what_a_body_may_not_be_is_the_api_s_problem():
    with pytest.raises(Problem) as caught:
        body_of(ApplyLoan, amount="1", interest_rate="1", tenure=1, repayment_plan="none")
    refusal = refused(caught.value)
    assert refusal.status == 422
    assert refusal.fields == {"repayment_plan": "is none of the values that it may have"}


def test_a_refusal_says_the_whole_and_each_field():
    errors = [{"path": "amount", "message": "must be more"}, {"path": "$.tenure", "message": "must be less"}]
    refusal = refused(Problem("invalid-fields", "Some fields are not valid.", {"errors": errors}))
    assert refusal.text == "Some fields are not valid."
    assert refusal.fields == {"amount": "must be more", "tenure": "must be less"}


def test_what_no_other_words_would_mend_is_no_refusal():
    with pytest.raises(Problem):
        refused(Problem("storage-full", "The disk is nearly full."))
