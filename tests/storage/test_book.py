from __future__ import annotations

import pytest

from ledgerd.domain.book import Book, Collected
from ledgerd.storage.book import book_part, collected_part, payments_named
from tests.storage.books import START, Bare, Writer, stored, terms

LARGEST_PAISE = 9_999_999_999_999_99


def lent(bare: Bare, loan_ids: range, amount_paise: int = 5_000_00) -> list[Writer]:
    writers = [Writer(loan_id) for loan_id in loan_ids]
    entries = [writer.lend(terms(amount_paise)) for writer in writers]
    bare.project(stored(entries))
    return writers


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_the_parts_are_the_whole(bare: Bare, limit: int) -> None:
    writers = lent(bare, range(1, 6))
    book, after_id = Book(), 0
    reads = 0
    while after_id is not None:
        part, after_id = book_part(bare.reader, after_id, limit, START + 40)
        book.join(part)
        reads += 1
    expected = Book()
    for writer in writers:
        assert writer.loan is not None
        expected.add(writer.loan, START + 40)
    assert book == expected
    assert reads == 5 // limit + 1


def test_an_empty_book_is_all_nothing(bare: Bare) -> None:
    assert book_part(bare.reader, 0, 10, START) == (Book(), None)
    assert collected_part(bare.reader, 0, 10) == ({}, 0)
    assert payments_named(bare.reader, "t", 1, 10) == ([], 1)


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_payments_are_summed_by_day_and_each_once(bare: Bare, limit: int) -> None:
    [writer] = lent(bare, range(1, 2))
    entries = [writer.pay(f"t{n}", 100 + n, START + n // 2) for n in range(6)]
    bare.project(stored(entries, 2))
    collected: dict[int, Collected] = {}
    after_seq = 0
    while True:
        part, last_seq = collected_part(bare.reader, after_seq, limit)
        for day, more in part.items():
            had = collected.setdefault(day, Collected())
            had.payments += more.payments
            had.interest_paise += more.interest_paise
            had.principal_paise += more.principal_paise
        if last_seq == after_seq:
            break
        after_seq = last_seq
    assert [(day - START, each.payments, each.amount_paise) for day, each in collected.items()] == [
        (0, 2, 201),
        (1, 2, 205),
        (2, 2, 209),
    ]
    assert collected_part(bare.reader, after_seq, limit) == ({}, after_seq)


def test_the_largest_amounts_do_not_overflow(bare: Bare) -> None:
    writers = lent(bare, range(1, 101), LARGEST_PAISE)
    bare.project(stored([writer.pay(f"{writer.loan_id}", LARGEST_PAISE, START) for writer in writers], 101))
    [collected] = collected_part(bare.reader, 0, 5000)[0].values()
    assert collected.principal_paise == 100 * LARGEST_PAISE
    assert 5000 * LARGEST_PAISE < 2**63
    book, _ = book_part(bare.reader, 0, 200, START)
    assert book.principal_received_paise == 100 * LARGEST_PAISE


@pytest.mark.parametrize("span", [1, 2, 3, 50])
def test_payments_are_found_by_name_however_it_is_looked(bare: Bare, span: int) -> None:
    first, second = lent(bare, range(1, 3))
    entries = [first.pay("a", 1), second.pay("b", 1), second.pay("c", 1)]
    bare.project(stored(entries, 3))
    found, before_seq = [], 6
    while before_seq > 1:
        some, before_seq = payments_named(bare.reader, "b", before_seq, span)
        found += some
    assert found == [[4, 2]]
