"""Projections: loans, bills and payments, folded from committed events by the domain's own
`evolve`.

Rows hold exactly what the journal says, up to the watermark `projected_seq`, which moves in the same
transaction. `load` is the way back: from rows to the state that an actor decides on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ledgerd.domain.events import BillIssued, LoanDisbursed, PaymentRecorded, Terms, decode_event
from ledgerd.domain.loan import Loan, evolve
from ledgerd.storage.ports import StoredEvent
from ledgerd.storage.precedence import between

_STATE_COLUMNS = (
    "version, head_hash, last_payment_seq, principal_paise, accrued_units, accrued_through,"
    " interest_received_paise, principal_received_paise, bills_issued, oldest_unpaid_bill,"
    " closed_on, next_billing"
)
_TERMS_COLUMNS = (
    "amount_paise, apr_hundredths, daily_rate_thousandths, tenure, plan, disbursed_on, cycle_days, due_days,"
    " min_due_hundredths"
)
# All loans as one JSON text, in the shape of `_read`: a statement that steps from row to row gives the
# interpreter's lock away at each, and may wait to have it back.
# Bills are paid oldest first, so the unpaid ones are the newest.
_SELECT_LOANS = f"""
    SELECT json_group_array(json_array(
        id, version, hex(head_hash), last_payment_seq,
        json_array(
            borrower_id, json_array({_TERMS_COLUMNS}), principal_paise, accrued_units, accrued_through,
            bills_issued,
            iif(oldest_unpaid_bill IS NULL, json_array(), (
                SELECT json_group_array(json_array(number, interest_due_paise, principal_left_paise))
                FROM (
                    SELECT number, interest_paise - interest_paid_paise AS interest_due_paise,
                        principal_due_paise - principal_paid_paise AS principal_left_paise
                    FROM bills WHERE loan_id = loans.id AND number >= oldest_unpaid_bill
                    ORDER BY number
                )
                WHERE interest_due_paise + principal_left_paise > 0
            )),
            interest_received_paise, principal_received_paise, closed_on
        )
    ))
    FROM loans WHERE id IN (SELECT value FROM json_each(?))
"""
_read = msgspec.json.Decoder(list[tuple[int, int, str, int | None, Loan]])
_INSERT_LOAN = (
    f"INSERT INTO loans ({_STATE_COLUMNS}, id, borrower_id, {_TERMS_COLUMNS})"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE_LOAN = (
    f"UPDATE loans SET {', '.join(f'{c.strip()} = ?' for c in _STATE_COLUMNS.split(','))} WHERE id = ?"
)
# SQLite writes the index of a column that an UPDATE names, changed or not. Most loans were only paid.
_UPDATE_PAID_LOAN = _UPDATE_LOAN.replace(", next_billing = ?", "")
_INSERT_BILL = (
    "INSERT INTO bills (loan_id, number, billing_date, due_date,"
    " interest_paise, principal_due_paise, past_due_paise, interest_paid_paise, principal_paid_paise)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0)"
)
_PAY_BILL = (
    "UPDATE bills SET interest_paid_paise = interest_paid_paise + ?,"
    " principal_paid_paise = principal_paid_paise + ?"
    " WHERE loan_id = ? AND number = ?"
)
_INSERT_PAYMENT = (
    "INSERT INTO payments (seq, loan_id, version, previous_seq, payment_id, transaction_id, paid_on,"
    " recorded_at_ms, amount_paise, interest_paise, principal_paise, allocations)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(slots=True)
class LoanRow:
    """A loan in the tables: its state, and where its chains end."""

    loan: Loan
    version: int
    head_hash: bytes
    last_payment_seq: int | None


@dataclass(slots=True)
class Changes:
    """Rows to write for a slice of the journal, each kind in order."""

    new_loans: set[int] = field(default_factory=set)
    rescheduled: set[int] = field(default_factory=set)  # loans whose next billing date is another now
    bills: list[tuple[Any, ...]] = field(default_factory=list)
    paid: list[tuple[Any, ...]] = field(default_factory=list)
    payments: list[tuple[Any, ...]] = field(default_factory=list)


def load_rows(connection: sqlite3.Connection, loan_ids: Iterable[int]) -> dict[int, LoanRow]:
    """Read loans in one query, however many: id -> row; ids that are not there are left out.

    Raises msgspec.ValidationError when a row is none that a loan can have.
    """
    asked = msgspec.json.encode(list(loan_ids)).decode()
    text = connection.execute(_SELECT_LOANS, (asked,)).fetchone()[0]
    return {
        loan_id: LoanRow(loan, version, bytes.fromhex(head_hash), last_payment_seq)
        for loan_id, version, head_hash, last_payment_seq, loan in _read.decode(text)
    }


def _state_values(row: LoanRow) -> tuple[Any, ...]:
    loan = row.loan
    return (
        row.version,
        row.head_hash,
        row.last_payment_seq,
        loan.principal_paise,
        loan.accrued_units,
        loan.accrued_through,
        loan.interest_received_paise,
        loan.principal_received_paise,
        loan.bills_issued,
        loan.unpaid_bills[0].number if loan.unpaid_bills else None,
        loan.closed_on,
        loan.next_billing,
    )


def project(
    connection: sqlite3.Connection,
    events: Sequence[StoredEvent],
    give_way: Callable[[], None] = lambda: None,
) -> int:
    """Write the rows of consecutive events, within the caller's transaction, and return the new watermark.
    `give_way` is called between events and between rows.
    """
    rows = load_rows(connection, {event.loan_id for event in events})
    changes = Changes()
    for event in between(events, give_way):
        _fold(rows, changes, event)
    write_rows(connection, rows, changes, give_way)
    watermark = events[-1].seq
    connection.execute("UPDATE meta SET value = ? WHERE key = 'projected_seq'", (watermark,))
    return watermark


def _fold(rows: dict[int, LoanRow], changes: Changes, stored: StoredEvent) -> None:
    event = decode_event(stored.body)
    row = rows.get(stored.loan_id)
    if row is None:
        assert isinstance(event, LoanDisbursed), "a loan's first event disburses it"
        row = rows[stored.loan_id] = LoanRow(evolve(None, event), 0, b"", None)
        changes.new_loans.add(stored.loan_id)
    else:
        row.loan = evolve(row.loan, event)
    assert stored.version == row.version + 1, "a loan's events are projected in order, each once"
    row.version, row.head_hash = stored.version, stored.hash
    if isinstance(event, BillIssued):
        changes.bills.append(bill_values(stored.loan_id, row.loan.terms, event))
        changes.rescheduled.add(stored.loan_id)
    elif isinstance(event, PaymentRecorded):
        if row.loan.closed_on is not None:
            changes.rescheduled.add(stored.loan_id)
        changes.payments.append(payment_values(stored, event, row.last_payment_seq))
        row.last_payment_seq = stored.seq
        changes.paid += [
            (part.interest_paise, part.principal_paise, stored.loan_id, part.bill)
            for part in event.allocations
            if part.bill
        ]


def bill_values(loan_id: int, terms: Terms, bill: BillIssued) -> tuple[Any, ...]:
    """Return a bill's frozen columns, in the table's order."""
    return (
        loan_id,
        bill.number,
        bill.billing_date,
        terms.due_date(bill.number),
        bill.interest_paise,
        bill.principal_due_paise,
        bill.past_due_paise,
    )


def payment_values(stored: StoredEvent, event: PaymentRecorded, previous_seq: int | None) -> tuple[Any, ...]:
    """Return a payment's columns, in the table's order."""
    return (
        stored.seq,
        stored.loan_id,
        stored.version,
        previous_seq,
        event.payment_id,
        event.transaction_id,
        event.paid_on,
        event.recorded_at_ms,
        event.amount_paise,
        event.interest_paise,
        event.principal_paise,
        msgspec.json.encode(event.allocations).decode(),
    )


def write_rows(
    connection: sqlite3.Connection,
    rows: dict[int, LoanRow],
    changes: Changes,
    give_way: Callable[[], None],
) -> None:
    """Write a slice: parents before children, in the order of their pages."""

    def write(statement: str, values: Iterable[tuple[Any, ...]]) -> None:
        connection.executemany(statement, between(values, give_way))

    write(
        _INSERT_LOAN,
        (
            (
                *_state_values(rows[i]),
                i,
                rows[i].loan.borrower_id,
                *msgspec.structs.astuple(rows[i].loan.terms),
            )
            for i in sorted(changes.new_loans)
        ),
    )
    touched = rows.keys() - changes.new_loans
    paid = sorted(touched - changes.rescheduled)
    write(_UPDATE_PAID_LOAN, ((*_state_values(rows[i])[:-1], i) for i in paid))
    rescheduled = sorted(touched & changes.rescheduled)
    write(_UPDATE_LOAN, ((*_state_values(rows[i]), i) for i in rescheduled))
    write(_INSERT_BILL, changes.bills)
    write(_PAY_BILL, changes.paid)
    write(_INSERT_PAYMENT, changes.payments)


def projected_seq(connection: sqlite3.Connection) -> int:
    """Return the watermark: every event up to it is in the tables, none after it."""
    row = connection.execute(
        "SELECT value FROM meta WHERE key = 'projected_seq' AND typeof(value) = 'integer'"
    ).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("the tables have lost their watermark")
    seq: int = row[0]
    return seq
