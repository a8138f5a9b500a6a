"""Pages of payments, issued bills, and lists of loans: what they show, and that their price does not grow."""

from __future__ import annotations

from typing import Any

import pytest

from ledgerd.domain.statement import bills_of
from ledgerd.storage.pages import count_due, issued_bills, loans_after, loans_due, payments_page
from ledgerd.storage.ports import StoredEvent
from tests.storage.books import ADD_USER, START, Bare, Writer, stored, terms

LIMIT = 100


class Split:
    """A loan and its `count` payments t0, t1, ..; the last `in_tail` of its events are not projected."""

    def __init__(
        self, bare: Bare, count: int, in_tail: int = 0, loan_id: int = 1, first_seq: int = 1
    ) -> None:
        self.bare = bare
        self.loan_id = loan_id
        self.writer = Writer(loan_id)
        prefix = "" if loan_id == 1 else f"{loan_id}-"
        entries = [self.writer.lend(terms(10**9, 12))] + [
            self.writer.pay(f"{prefix}t{n}", 1) for n in range(count)
        ]
        self.events = stored(entries, first_seq)
        self.project(len(self.events) - in_tail)

    def project(self, count: int) -> None:
        self.tail: list[StoredEvent] = self.events[count:]
        done = self.bare.tables.execute("SELECT version FROM loans WHERE id = ?", (self.loan_id,)).fetchone()
        if some := self.events[done[0] if done else 0 : count]:
            self.bare.project(some)

    def page(self, before: int | None = None, limit: int = LIMIT, through: int | None = None) -> Any:
        version = self.writer.version if through is None else through
        return payments_page(self.bare.reader, self.tail, self.loan_id, version, before, limit)

    def names(self, before: int | None = None, limit: int = LIMIT, through: int | None = None) -> list[str]:
        return [row[5] for row in self.page(before, limit, through)]


def names(first: int, last: int) -> list[str]:
    """t<first> down to t<last>."""
    return [f"t{n}" for n in range(first, last - 1, -1)]


# Payments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_tail", [0, 1, 4, 6, 10, 11])
@pytest.mark.parametrize("limit", [1, 3, 9, 10, 11, 500])
def test_pages_join_tail_and_rows_without_a_seam(bare: Bare, in_tail: int, limit: int) -> None:
    loan = Split(bare, 10, in_tail)
    seen: list[str] = []
    before = None
    while page := loan.page(before, limit):
        assert len(page) <= limit
        seen += [row[5] for row in page]
        before = page[-1][0]
    assert seen == names(9, 0)


def test_rows_are_the_same_from_the_tail_and_from_the_tables(bare: Bare) -> None:
    loan = Split(bare, 10, in_tail=10)
    from_tail = loan.page()
    loan.project(11)
    assert [[*row[:3], *row[4:]] for row in loan.page()] == [[*row[:3], *row[4:]] for row in from_tail]


@pytest.mark.parametrize("projected", range(5, 12))
def test_what_is_in_both_is_shown_once(bare: Bare, projected: int) -> None:
    """The projector went on after the reader had taken its tail."""
    loan = Split(bare, 10, in_tail=6)
    tail = loan.tail
    loan.project(projected)
    loan.tail = tail
    assert loan.names() == names(9, 0)
    assert loan.names(limit=2) == names(9, 8)
    for seq in range(2, 12):  # t0 is event 2
        assert loan.names(before=seq, limit=3) == names(seq - 3, max(0, seq - 5))


@pytest.mark.parametrize("in_tail", [0, 4, 8])
@pytest.mark.parametrize("through", [0, 1, 2, 5, 8, 11])
def test_what_is_newer_than_the_answer_is_left_out(bare: Bare, through: int, in_tail: int) -> None:
    loan = Split(bare, 10, in_tail)
    newest = through - 2  # version 2 is t0
    assert loan.names(through=through) == names(newest, 0)
    assert loan.names(through=through, limit=2) == names(newest, max(0, newest - 1))


def test_many_newer_rows_are_passed_over(bare: Bare) -> None:
    loan = Split(bare, 60)
    assert loan.names(through=3, limit=7) == ["t1", "t0"]


def test_a_cursor_of_another_loan_is_refused(bare: Bare) -> None:
    loan = Split(bare, 3)
    Split(bare, 3, loan_id=2, first_seq=5)
    assert loan.names(before=4) == ["t1", "t0"]
    for foreign in (6, 7, 8, 99, 0, -1):
        assert loan.page(before=foreign) is None
    in_tail = Split(bare, 3, in_tail=4, loan_id=3, first_seq=9)
    assert in_tail.names(before=12) == ["3-t1", "3-t0"]
    for foreign in (2, 4, 6, 13):
        assert in_tail.page(before=foreign) is None


def test_a_cursor_in_the_tail_still_holds_when_it_is_projected(bare: Bare) -> None:
    loan = Split(bare, 10, in_tail=5)
    cursor = loan.page(limit=2)[-1][0]
    loan.project(9)
    assert loan.names(before=cursor, limit=3) == names(7, 5)
    loan.project(11)
    assert loan.names(before=cursor, limit=3) == names(7, 5)


def test_the_first_payment_is_the_end(bare: Bare) -> None:
    loan = Split(bare, 2)
    assert loan.page(before=2) == []
    assert Split(bare, 0, loan_id=2, first_seq=4).page() == []
    assert payments_page(bare.reader, [], 99, 0, None, 5) == []


# Bills ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projected", range(7))
def test_bills_are_shown_as_issued_wherever_they_are(bare: Bare, projected: int) -> None:
    writer = Writer(1)
    entries = [writer.lend(), writer.bill(START + 90), writer.pay("t", 300_00), writer.bill(START + 120)]
    events = stored(entries)
    assert [event.kind for event in events] == ["disbursed", "billed", "billed", "billed", "paid", "billed"]
    if projected:
        bare.project(events[:projected])
    bills = issued_bills(bare.reader, events[projected:], 1, 6)
    assert [bill.number for bill in bills] == [1, 2, 3, 4]
    assert issued_bills(bare.reader, events, 1, 6) == bills
    assert writer.loan is not None
    assert [bill.status for bill in bills_of(writer.loan, bills)] == ["paid", "part_paid", "unpaid", "unpaid"]


def test_a_statement_never_shows_a_bill_that_its_loan_does_not_know(bare: Bare) -> None:
    writer = Writer(1)
    entries = [writer.lend(), writer.bill(START + 30)]
    then = writer.loan
    entries += [writer.bill(START + 60)]
    events = stored(entries)
    bare.project(events[:1])
    assert [bill.number for bill in issued_bills(bare.reader, events[1:], 1, 2)] == [1]
    bare.project(events[1:])
    assert then is not None
    assert [shown.bill.number for shown in bills_of(then, issued_bills(bare.reader, [], 1, 2))] == [1]


# Lists of loans ------------------------------------------------------------------------------------


def test_loans_are_listed_in_order_of_all_or_of_one_borrower(bare: Bare) -> None:
    bare.project(stored([Writer(loan_id).lend() for loan_id in (5, 1, 3)]))
    bare.tables.execute(ADD_USER, (8,))
    bare.tables.execute("UPDATE loans SET borrower_id = 8 WHERE id = 3")
    assert loans_after(bare.reader, None, 0, 10) == [1, 3, 5]
    assert loans_after(bare.reader, None, 1, 1) == [3]
    assert loans_after(bare.reader, 7, 0, 10) == [1, 5]
    assert loans_after(bare.reader, 7, 1, 10) == [5]
    assert loans_after(bare.reader, 8, 3, 10) == []
    assert loans_after(bare.reader, 9, 0, 10) == []


def test_loans_that_fall_due_come_by_date_then_id(bare: Bare) -> None:
    writers = {loan_id: Writer(loan_id) for loan_id in (4, 2, 3, 1)}
    days = {4: 0, 2: 1, 3: 1, 1: 2}
    entries = [writer.lend(terms(disbursed_on=START + days[i])) for i, writer in writers.items()]
    entries.append(writers[3].pay("all", 10**9))
    bare.project(stored(entries))
    due = START + 30
    assert loans_due(bare.reader, due - 1, 0, 0, 10) == []
    assert loans_due(bare.reader, due + 1, 0, 0, 10) == [[due, 4], [due + 1, 2]]  # 3 is closed
    assert loans_due(bare.reader, due + 9, 0, 0, 2) == [[due, 4], [due + 1, 2]]
    assert loans_due(bare.reader, due + 9, due, 4, 10) == [[due + 1, 2], [due + 2, 1]]
    assert loans_due(bare.reader, due + 9, due, 3, 10) == [[due, 4], [due + 1, 2], [due + 2, 1]]
    assert loans_due(bare.reader, due + 9, due + 2, 1, 10) == []
    assert [count_due(bare.reader, day) for day in (due - 1, due, due + 1, due + 9)] == [0, 1, 2, 3]


def test_lists_and_due_loans_are_read_along_their_indexes(bare: Bare) -> None:
    plans = {
        "SELECT id FROM loans WHERE borrower_id = 7 AND id > 5 ORDER BY id LIMIT 9": "loans_borrower",
        "SELECT next_billing, id FROM loans WHERE next_billing IS NOT NULL AND next_billing <= 9"
        " AND (next_billing, id) > (1, 2) ORDER BY next_billing, id LIMIT 9": "loans_next_billing",
        "SELECT count(*) FROM loans WHERE next_billing IS NOT NULL AND next_billing <= 9": (
            "loans_next_billing"
        ),
    }
    for sql, index in plans.items():
        plan = " ".join(row[3] for row in bare.reader.execute(f"EXPLAIN QUERY PLAN {sql}"))
        assert f"INDEX {index}" in plan
        assert "TEMP B-TREE" not in plan


# What a page costs ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("unhurried")
async def test_a_statement_costs_the_same_however_long_the_loan_is(bare: Bare) -> None:
    """Ten payments or twenty thousand: four queries in three snapshots (a fifth where bills are unpaid), and
    two for each page after the first.
    """
    statements, steps = [], []
    for loan_id, (count, first_seq) in enumerate([(200, 1), (10, 202), (20_000, 213)], 1):
        loan = Split(bare, count, loan_id=loan_id, first_seq=first_seq)
        engine = bare.engine()
        said: list[str] = []
        stepped = [0]

        def step(stepped: list[int] = stepped) -> None:
            stepped[0] += 1

        bare.reader.set_trace_callback(said.append)
        bare.reader.set_progress_handler(step, 1)
        [loaded] = await engine.load([loan_id])
        assert await engine.read("issued_bills", loan_id, loaded.version) == []
        page = await engine.read("payments_page", loan_id, loaded.version, None, LIMIT + 1)
        first = [len([sql for sql in said if sql not in {"BEGIN", "COMMIT"}]), len(said)]
        said.clear()
        before = page[4][0]
        page = await engine.read("payments_page", loan_id, loaded.version, before, LIMIT + 1)
        statements.append([*first, len([sql for sql in said if sql not in {"BEGIN", "COMMIT"}])])
        bare.reader.set_progress_handler(None, 0)
        bare.reader.set_trace_callback(None)
        steps.append(stepped[0])
        assert len(page) == min(count - 5, LIMIT + 1)
        assert loan.writer.loaded == loaded
    assert statements == [[4, 10, 2]] * 3
    assert steps[2] < 1.05 * steps[0]  # SQLite's own steps, for as many rows
