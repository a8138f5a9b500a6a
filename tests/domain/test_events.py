"""Events: their shape on disk, pinned byte by byte, and that each comes back as it was.

The bytes are what journals hold. When a field is added at the end, the old bytes stay here, to be read still,
and the new ones join them; after any other change that fails here, old journals can't be read.
"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerd.domain.events import (
    Allocation,
    BillIssued,
    Due,
    Event,
    LoanDisbursed,
    PaymentRecorded,
    Terms,
    decode_event,
    encode_event,
    kind_of,
)
from ledgerd.domain.loan import Loan
from tests.domain.lives import LAW, MOVES, Move, lend_under
from tests.domain.lives import TERMS as ANY_TERMS

TERMS = Terms(5_000_00, 14_00, 38, 12, "min_due", 739_252, 30, 15, 3_00)
LENT = LoanDisbursed(7, TERMS, 1_700_000_000_000, "k-1")
LENT_PLAINLY = LoanDisbursed(2**63 - 1, msgspec.structs.replace(TERMS, plan="equal_emi"), 0, None)
BILLED = BillIssued(3, 739_342, 57_00, 150_00, 414_00)
PAID = PaymentRecorded(
    payment_id=2**40 + 1,
    caller="c:1",
    transaction_id="t-1",
    paid_on=739_292,
    recorded_at_ms=1_700_000_000_001,
    amount_paise=50_00,
    interest_paise=15_20,
    principal_paise=34_80,
    allocations=(Allocation(1, 739_297, 11_40, 30_00), Allocation(0, 0, 3_80, 4_80)),
    outstanding_principal_paise=965_20,
    outstanding_interest_paise=0,
    next_due=Due(2, 739_312, 739_327, 36_29),
)
PAID_OFF = PaymentRecorded(1, "b:2", "x.y:z_0", 739_252, 5, 1, 0, 1, (Allocation(0, 0, 0, 1),), 0, 0, None)

GOLDEN: list[tuple[str, Event, str]] = [
    (
        "disbursed",
        LENT,
        (
            "95a96469736275727365640799ce0007a120cd0578260ca76d696e5f647565ce000b47b41e0fcd012c"
            "cf0000018bcfe56800a36b2d31"
        ),
    ),
    (
        "disbursed",
        LENT_PLAINLY,
        (
            "95a9646973627572736564cf7fffffffffffffff99ce0007a120cd0578260ca9657175616c5f656d69"
            "ce000b47b41e0fcd012c00c0"
        ),
    ),
    ("billed", BILLED, "96a662696c6c656403ce000b480ecd1644cd3a98cda1b8"),
    (
        "paid",
        PAID,
        (
            "9da470616964cf0000010000000001a3633a31a3742d31ce000b47dccf0000018bcfe56801cd1388cd05f0cd0d98"
            "929401ce000b47e1cd0474cd0bb8940000cd017ccd01e0ce00017908009402ce000b47f0ce000b47ffcd0e2d"
        ),
    ),
    ("paid", PAID_OFF, "9da47061696401a3623a32a7782e793a7a5f30ce000b47b4050100019194000000010000c0"),
]
NAMES = ["lent", "lent plainly", "billed", "paid", "paid off"]


@pytest.mark.parametrize(("kind", "event", "golden"), GOLDEN, ids=NAMES)
def test_bytes_on_disk(kind: str, event: Event, golden: str) -> None:
    assert encode_event(event).hex() == golden
    assert decode_event(bytes.fromhex(golden)) == event
    assert kind_of(event) == kind


def test_every_kind_is_pinned() -> None:
    assert {type(event) for _, event, _ in GOLDEN} == {LoanDisbursed, BillIssued, PaymentRecorded}


@given(ANY_TERMS, MOVES)
@LAW
def test_every_event_of_a_life_comes_back_as_it_was(terms: Terms, moves: list[Move]) -> None:
    book = lend_under(terms)
    book.live(moves)
    for event in book.events:
        body = encode_event(event)
        again = decode_event(body)
        assert (type(again), again) == (type(event), event)
        assert encode_event(again) == body


@given(ANY_TERMS, MOVES)
@LAW
def test_a_loan_comes_back_as_it_was(terms: Terms, moves: list[Move]) -> None:
    book = lend_under(terms)
    book.live(moves)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(book.loan), type=Loan) == book.loan


@given(st.text(max_size=64), st.text(max_size=64), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
@LAW
def test_any_text_and_any_number_come_back(
    caller: str, transaction_id: str, payment_id: int, amount_paise: int
) -> None:
    part = Allocation(0, 0, 0, amount_paise)
    event = PaymentRecorded(
        payment_id, caller, transaction_id, 1, 2, amount_paise, 0, amount_paise, (part,), 0, 0, None
    )
    assert decode_event(encode_event(event)) == event


def broken() -> list[bytes]:
    bill = list(msgspec.msgpack.decode(encode_event(BillIssued(1, 739_282, 57_00, 150_00, 0))))
    shapes = [
        [],
        ["billed"],
        bill[:-1],
        ["cancelled", *bill[1:]],
        ["billed", "one", *bill[2:]],
        ["billed", 1.5, *bill[2:]],
        ["billed", None, *bill[2:]],
        {"type": "billed"},
        None,
    ]
    return [
        b"",
        b"\xc1",
        encode_event(LoanDisbursed(7, TERMS, 0, None))[:-1],
        *map(msgspec.msgpack.encode, shapes),
    ]


@pytest.mark.parametrize("body", broken(), ids=bytes.hex)
def test_what_is_no_event_is_never_read_as_one(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_event(body)


def test_fields_added_at_the_end_by_a_newer_version_are_passed_over() -> None:
    bill = BillIssued(1, 739_282, 57_00, 150_00, 0)
    longer = [*msgspec.msgpack.decode(encode_event(bill)), "a field of tomorrow"]
    assert decode_event(msgspec.msgpack.encode(longer)) == bill


def test_dates_follow_from_the_terms() -> None:
    assert [TERMS.billing_date(number) - TERMS.disbursed_on for number in (0, 1, 2, 12)] == [0, 30, 60, 360]
    assert [TERMS.due_date(number) - TERMS.disbursed_on for number in (1, 2, 12)] == [45, 75, 375]
    odd = msgspec.structs.replace(TERMS, cycle_days=7, due_days=3)
    assert (odd.billing_date(2), odd.due_date(2)) == (739_266, 739_269)


def test_a_bill_asks_for_its_own_interest_and_principal() -> None:
    assert BillIssued(3, 739_342, 57_00, 150_00, 414_00).min_due_paise == 207_00


@pytest.mark.parametrize("event", [event for _, event, _ in GOLDEN], ids=NAMES)
def test_events_do_not_change(event: Event) -> None:
    for name in event.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(event, name, None)
