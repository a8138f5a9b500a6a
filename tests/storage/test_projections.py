"""Projection: the same rows however the journal is sliced, and the way back to what actors decide on."""

from __future__ import annotations

import sqlite3
from random import Random

import pytest

from ledgerd.domain.events import BillIssued, PaymentRecorded, decode_event
from ledgerd.domain.loan import evolve
from ledgerd.storage.ports import StoredEvent
from ledgerd.storage.projections import load_rows, projected_seq
from tests.storage.books import ADD_USER, BORROWER, START, Bare, Writer, live, stored

TABLES = ("loans", "bills", "payments", "meta")
LOANS = (40, 10, 30, 20)


def lives(seed: int) -> list[StoredEvent]:
    """Four lives by turns."""
    chance = Random(seed)
    running = [live(Writer(loan_id), chance, 12) for loan_id in LOANS]
    entries = []
    while running:
        entry = next(one := chance.choice(running), None)
        if entry is None:
            running.remove(one)
        else:
            entries.append(entry)
    return stored(entries)


def dump(bare: Bare) -> dict[str, list[object]]:
    return {table: bare.tables.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


@pytest.mark.parametrize("seed", range(12))
def test_rows_are_the_fold_of_the_journal_after_every_slice(bare: Bare, seed: int) -> None:
    events, chance = lives(seed), Random(seed)
    done = 0
    while done < len(events):
        some = events[done : done + chance.choice([1, 2, 7, 40])]
        assert bare.project(some) == some[-1].seq == projected_seq(bare.tables)
        done += len(some)
        for loan_id, row in load_rows(bare.reader, LOANS).items():
            of_loan = [event for event in events[:done] if event.loan_id == loan_id]
            loan = None
            for event in of_loan:
                loan = evolve(loan, decode_event(event.body))
            paid = [event.seq for event in of_loan if event.kind == "paid"]
            assert (row.loan, row.version, row.head_hash) == (loan, len(of_loan), of_loan[-1].hash)
            assert row.last_payment_seq == (paid[-1] if paid else None)


@pytest.mark.parametrize("seed", range(4))
def test_slices_of_any_size_leave_the_same_rows(bare: Bare, seed: int) -> None:
    events = lives(seed)
    dumps = []
    for size in (1, 3, len(events)):
        bare.clear()
        for start in range(0, len(events), size):
            bare.project(events[start : start + size])
        dumps.append(dump(bare))
    assert dumps[0] == dumps[1] == dumps[2]


def test_every_row_says_what_its_event_says(bare: Bare) -> None:
    events = lives(1)
    bare.project(events)
    bodies = {event.seq: decode_event(event.body) for event in events}
    bills = {
        (events[seq - 1].loan_id, body.number): body
        for seq, body in bodies.items()
        if isinstance(body, BillIssued)
    }
    paid = {seq: body for seq, body in bodies.items() if isinstance(body, PaymentRecorded)}
    rows = bare.tables.execute("SELECT * FROM bills").fetchall()
    assert len(rows) == len(bills) > 10
    for loan_id, number, date, due, interest, principal, past_due, paid_interest, paid_principal in rows:
        bill = bills[loan_id, number]
        assert (date, due, past_due) == (bill.billing_date, bill.billing_date + 15, bill.past_due_paise)
        assert (interest, principal) == (bill.interest_paise, bill.principal_due_paise)
        parts = [
            part
            for seq, body in paid.items()
            if events[seq - 1].loan_id == loan_id
            for part in body.allocations
            if part.bill == number
        ]
        assert paid_interest == sum(part.interest_paise for part in parts)
        assert paid_principal == sum(part.principal_paise for part in parts)
    rows = bare.tables.execute("SELECT * FROM payments").fetchall()
    assert [row[0] for row in rows] == list(paid)
    last: dict[int, int] = {}
    for seq, loan_id, version, previous, payment_id, transaction_id, *figures, allocations in rows:
        body = paid[seq]
        assert (loan_id, version) == (events[seq - 1].loan_id, events[seq - 1].version)
        assert previous == last.get(loan_id)
        last[loan_id] = seq
        assert (payment_id, transaction_id) == (body.payment_id, body.transaction_id)
        assert figures == [
            body.paid_on, body.recorded_at_ms, body.amount_paise, body.interest_paise, body.principal_paise
        ]  # fmt: skip
        assert allocations.count("[") == len(body.allocations) + 1


def test_the_hints_for_billing_and_bills_follow_the_loan(bare: Bare) -> None:
    writer = Writer(1)
    sql = "SELECT next_billing, oldest_unpaid_bill, closed_on FROM loans"

    def hints(*entries: object) -> object:
        done = projected_seq(bare.tables)
        bare.project(stored(list(entries), first_seq=done + 1))  # type: ignore[arg-type]
        return bare.tables.execute(sql).fetchone()

    assert hints(writer.lend()) == (START + 30, None, None)
    assert hints(writer.bill(START + 60)) == (START + 90, 1, None)
    assert writer.loan is not None
    [first, _] = writer.loan.unpaid_bills
    assert hints(writer.pay("a", first.amount_paise)) == (START + 90, 2, None)
    assert hints(writer.pay("b", 10**9)) == (None, None, START + 60)


@pytest.mark.parametrize("loans", [1, 500])
def test_loans_are_read_in_one_query_however_many(bare: Bare, loans: int) -> None:
    writers = [Writer(loan_id) for loan_id in range(1, loans + 1)]
    entries = [writer.lend() for writer in writers] + [writer.bill(START + 60) for writer in writers]
    bare.project(stored(entries))
    said: list[str] = []
    bare.reader.set_trace_callback(said.append)
    rows = load_rows(bare.reader, range(1, loans + 1))
    bare.reader.set_trace_callback(None)
    assert len(said) == 1
    assert [rows[writer.loan_id].loan for writer in writers] == [writer.loan for writer in writers]


def test_events_are_projected_in_order_and_each_once(bare: Bare) -> None:
    writer = Writer(1)
    events = stored([writer.lend(), writer.pay("t1"), writer.pay("t2")])
    bare.project(events[:2])
    before = dump(bare)
    for wrong in (events[1:], events[:1], [events[2], events[2]]):
        with pytest.raises(AssertionError):
            bare.project(wrong)
        assert dump(bare) == before
    nobodys = stored([Writer(9).lend()], first_seq=3)
    bare.tables.execute("PRAGMA foreign_keys = OFF")
    bare.tables.execute("DELETE FROM users WHERE id = ?", (BORROWER,))
    bare.tables.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError):
        bare.project(nobodys)
    bare.tables.execute(ADD_USER, (BORROWER,))
    assert dump(bare) == before


def test_the_watermark_has_to_be_there(bare: Bare) -> None:
    for value in ("7", None):
        bare.tables.execute("DELETE FROM meta WHERE key = 'projected_seq'")
        if value is not None:
            bare.tables.execute("INSERT INTO meta VALUES ('projected_seq', ?)", (value,))
        with pytest.raises(sqlite3.DatabaseError, match="watermark"):
            projected_seq(bare.tables)


def test_rows_are_written_in_the_order_of_their_keys(bare: Bare) -> None:
    """Random pages are what projection costs: each is visited once."""
    entries = [Writer(loan_id).lend() for loan_id in (3, 1, 2)]
    said: list[str] = []
    bare.tables.set_trace_callback(said.append)
    bare.project(stored(entries))
    bare.tables.set_trace_callback(None)
    inserts = [sql for sql in said if sql.startswith("INSERT INTO loans")]
    ids = [sql.rpartition("VALUES")[2].split(", ")[12] for sql in inserts]
    assert ids == ["1", "2", "3"]
