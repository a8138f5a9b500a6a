"""Money is read and written to the letter; what could be no payment is none."""

from __future__ import annotations

import datetime as dt
import json

import msgspec
import pytest

from ledgerd.client import Payment, Receipt, paise, rupees
from ledgerd.client.models import encode_payment, reader
from tests.client.stub import RECEIPT

read_receipt = reader(Receipt)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("207", 20700), ("207.5", 20750), ("207.05", 20705), ("0.01", 1), ("9999999999999.99", 10**15 - 1)],
)
def test_rupees_are_paise_exactly(text, expected):
    assert paise(text) == expected
    assert paise(rupees(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1e3", "1_000", "1.", ".5", "0.001", " 1", "१", "1\n", "9" * 14]
)
def test_anything_else_is_no_money(text):
    with pytest.raises(ValueError, match="not rupees"):
        paise(text)


def test_a_receipt_is_read_with_what_a_later_version_adds():
    receipt = read_receipt(json.dumps(RECEIPT).encode())
    assert (receipt.amount_paise, receipt.allocations[0].principal_paise) == (20700, 15000)
    assert isinstance(receipt.amount_paise, int)
    assert (receipt.paid_on, receipt.recorded_at.microsecond) == (dt.date(2026, 1, 31), 703_000)


@pytest.mark.parametrize("amount", ["207", "207.0", "207.000", "-1.00", "1e2", "", 207.0, 207, None, "२.००"])
def test_money_of_another_form_is_not_guessed_at(amount):
    with pytest.raises(msgspec.ValidationError, match="amount"):
        read_receipt(json.dumps({**RECEIPT, "amount": amount}).encode())


def test_a_payment_is_sent_as_rupees():
    assert json.loads(encode_payment(Payment("l", 5, "t"))) == {
        "loan_id": "l",
        "amount": "0.05",
        "transaction_id": "t",
    }
    assert json.loads(encode_payment(Payment("l", 20700, "t", for_bill=3)))["for_bill"] == 3


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (("l", 207.0, "t"), "whole paise"),
        (("l", "207", "t"), "whole paise"),
        (("l", True, "t"), "whole paise"),
        (("l", 0, "t"), "more than zero"),
        (("l", -1, "t"), "more than zero"),
        (("l", 1, ""), "transaction_id"),
        (("l", 1, "a b"), "transaction_id"),
        (("l", 1, "t\n"), "transaction_id"),
        (("l", 1, "t" * 65), "transaction_id"),
        (("", 1, "t"), "loan_id"),
        (("l\ud800", 1, "t"), "loan_id"),
        (("l" * 65, 1, "t"), "loan_id"),
    ],
)
def test_what_could_be_no_payment_is_refused_here(fields, complaint):
    with pytest.raises((TypeError, ValueError), match=complaint):
        Payment(*fields)
