from __future__ import annotations

from random import Random

import pytest

from ledgerd.domain.book import Aged, Book, Collected, age_of, days_past_due
from ledgerd.domain.loan import Loan
from tests.domain.lives import START, lend, lend_under, random_move, random_terms


@pytest.mark.parametrize(
    ("days", "age"),
    [
        (0, "in time"),
        (1, "SMA-0"),
        (30, "SMA-0"),
        (31, "SMA-1"),
        (60, "SMA-1"),
        (61, "SMA-2"),
        (90, "SMA-2"),
        (91, "NPA"),
        (4000, "NPA"),
    ],
)
def test_ages_begin_and_end_on_their_day(days: int, age: str) -> None:
    assert age_of(days) == age


def test_days_count_from_the_due_date_of_the_oldest_unpaid_bill() -> None:
    life = lend(1_000_00, 14_00, 6)
    assert days_past_due(life.loan, START + 29) == 0
    life.bill(START + 60)
    assert [days_past_due(life.loan, START + day) for day in (45, 46, 75, 76)] == [0, 1, 30, 31]
    life.pay(41_40, START + 76)
    assert days_past_due(life.loan, START + 76) == 1


def some_loans(seed: int) -> list[Loan]:
    chance = Random(seed)
    loans = []
    for _ in range(12):
        life = lend_under(random_terms(chance))
        life.live([random_move(chance) for _ in range(chance.randrange(8))])
        loans.append(life.loan)
    return loans


@pytest.mark.parametrize("seed", range(20))
def test_sums_are_those_of_its_loans_however_it_is_cut(seed: int) -> None:
    loans = some_loans(seed)
    today = max(loan.accrued_through for loan in loans) + Random(seed).randrange(200)
    whole, parts = Book(), Book()
    for loan in loans:
        whole.add(loan, today)
        part = Book()
        part.add(loan, today)
        parts.join(part)
    assert parts == whole
    assert whole.loans == len(loans)
    # Nothing is lost: what was lent came back or is outstanding.
    assert whole.disbursed_paise == whole.principal_paise + whole.principal_received_paise
    assert sum(whole.disbursed_on.values()) == whole.disbursed_paise
    assert sum(aged.loans for aged in whole.ages.values()) == whole.open_loans
    outstanding_paise = sum(aged.outstanding_paise for aged in whole.ages.values())
    assert outstanding_paise == whole.principal_paise + whole.interest_paise
    assert whole.interest_received_paise == sum(loan.interest_received_paise for loan in loans)


def test_a_loan_counts_as_it_stands_on_the_day() -> None:
    """Also where no billing has run: as whoever asks for it sees it."""
    life = lend(1_000_00, 14_00, 6)
    book = Book()
    book.add(life.loan, START + 46)
    seen = life.view(START + 46)
    assert book.interest_paise == seen.interest_paise(START + 46) > 0
    assert book.ages == {"SMA-0": Aged(1, seen.payoff_paise(START + 46), 41_40)}


def test_a_closed_loan_owes_nothing_and_has_no_age() -> None:
    life = lend(1_000_00, 14_00, 6)
    life.pay(life.loan.payoff_paise(START + 10), START + 10)
    book = Book()
    book.add(life.loan, START + 500)
    assert (book.loans, book.open_loans, book.principal_paise, book.ages) == (1, 0, 0, {})
    assert book.principal_received_paise == book.disbursed_paise == 1_000_00


def test_what_was_collected_is_interest_and_principal() -> None:
    assert Collected(2, 30, 70).amount_paise == 100
