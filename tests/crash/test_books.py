"""Each lie that a ledger could tell its clients is noticed by their books."""

from __future__ import annotations

from typing import Any

import pytest

from tests.crash.books import Application, Books, Floor, Payment, in_real_order

UNKNOWN = {"type": "/problems/outcome-unknown"}


def receipt(payment: Payment, **changed: Any) -> dict[str, Any]:
    return {
        "transaction_id": payment.transaction_id,
        "amount": payment.amount,
        "principal": payment.amount,
        "replayed": False,
        **changed,
    }


@pytest.fixture
def books() -> Books:
    return Books("token", ["loan"])


@pytest.fixture
def paid(books: Books) -> list[Payment]:
    """Three payments: the second was sent when the first was known, the third while the second was not."""
    first, second, third = (Payment(f"t-{number}", "loan", "1.00") for number in range(3))
    books.sending(first)
    books.heard(first, 201, receipt(first))
    books.sending(second)
    books.sending(third)
    books.heard(second, 201, receipt(second))
    books.heard(third, 201, receipt(third))
    return [first, second, third]


def test_a_true_history_passes(books: Books, paid: list[Payment]) -> None:
    first, second, third = paid
    in_real_order([first, second, third])
    in_real_order([first, third, second])  # those were under way at once
    books.sending(first)
    books.heard(first, 200, receipt(first, replayed=True))
    books.floor("loan").holds({"version": 3, "principal_received": "3.00", "as_of": "2026-01-01"})


def test_an_order_that_was_turned_is_noticed(paid: list[Payment]) -> None:
    first, second, third = paid
    for turned in ([second, first, third], [second, third, first], [third, first, second]):
        with pytest.raises(AssertionError, match="t-0 was known before"):
            in_real_order(turned)


@pytest.mark.parametrize(
    ("status", "changed"),
    [
        (201, {"payment_id": "another"}),  # counted twice
        (200, {"payment_id": "another", "replayed": True}),  # another receipt
        (200, {}),  # a replay that does not say so
        (201, {"replayed": True}),
        (404, {}),
        (422, {"type": "/problems/amount-exceeds-payoff"}),  # refused after it was acknowledged
    ],
)
def test_an_answer_that_contradicts_the_first_is_noticed(
    books: Books, paid: list[Payment], status: int, changed: dict[str, Any]
) -> None:
    with pytest.raises(AssertionError):
        books.heard(paid[0], status, receipt(paid[0], **changed))


@pytest.mark.parametrize(
    ("stale", "says"),
    [
        ({"version": 1}, "version 1 after 2"),
        ({"principal_received": "2.99"}, "is not seen"),
        ({"as_of": "2025-12-31"}, "went back"),
    ],
)
def test_a_look_that_shows_less_than_was_known_is_noticed(
    books: Books, paid: list[Payment], stale: dict[str, Any], says: str
) -> None:
    assert paid
    true = {"version": 2, "principal_received": "3.00", "as_of": "2026-01-01"}
    floor = books.floor("loan")
    floor.holds(true)
    floor.learn(true)
    floor.learn(true | {"version": 1, "as_of": "2025-01-01"})  # an older look that came later lowers nothing
    with pytest.raises(AssertionError, match=says):
        floor.holds(true | stale)
    Floor().holds(true | stale)


def test_what_is_unknown_may_be_either_and_is_then_one_truth(books: Books) -> None:
    payment = Payment("t", "loan", "1.00")
    books.sending(payment)
    books.heard(payment, 500, UNKNOWN)
    assert payment.unsure
    assert books.floor("loan").principal_paise == 0
    books.heard(payment, 200, receipt(payment, replayed=True))
    assert books.floor("loan").principal_paise == 1_00
    with pytest.raises(AssertionError, match="counted twice"):
        books.heard(payment, 201, receipt(payment, payment_id="another"))


def test_an_application_that_was_lent_twice_or_otherwise_is_noticed() -> None:
    application = Application("a", "100.00")
    application.note(503, {})
    application.note(500, UNKNOWN)
    assert application.unsure
    application.note(201, {"loan_id": "1"})
    application.note(200, {"loan_id": "1"})
    for status, answer in ((201, {"loan_id": "1"}), (200, {"loan_id": "2"}), (409, {})):
        with pytest.raises(AssertionError):
            application.note(status, answer)
