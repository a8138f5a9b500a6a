"""`ledgerd verify`: recomputes everything from the journal and compares. Reads only; works while the service
runs.

In order: the files' own integrity and schema; the journal (sequence, digests, every loan's chain and
versions); the rules (every bill and payment decided again from the state before it); the tables (every figure
of loans, bills and payments) as of their watermark, and the once index as of its own; the balances of bank
histories, and the scores; what is written directly, as far as it can be known. A projection that is merely
behind is no difference.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ledgerd.domain.commands import Disburse, Repay
from ledgerd.domain.events import BillIssued, Event, LoanDisbursed, PaymentRecorded, decode_event, kind_of
from ledgerd.domain.loan import Loan, evolve, next_bill, repay
from ledgerd.domain.scoring import ScoreRules
from ledgerd.ids import format_id
from ledgerd.storage.balances import differing_balances
from ledgerd.storage.chain import GENESIS, batch_digest, event_hash
from ledgerd.storage.files import check_there, database_id
from ledgerd.storage.journal import events_after, head_seq, keys_after
from ledgerd.storage.migrate import FileKind, check_schema, schema_version
from ledgerd.storage.once import indexed_seq, key_hash
from ledgerd.storage.ports import StoredEvent, StoreError
from ledgerd.storage.projections import LoanRow, bill_values, load_rows, payment_values, projected_seq
from ledgerd.storage.report import Report
from ledgerd.storage.runs import check_clock, read_clock
from ledgerd.storage.sqlite import connect_reader, file_uri
from ledgerd.storage.transactions import recompute_scores
from ledgerd.storage.verify_direct import verify_direct, verify_schema, verify_settings

PAGE_LOANS = 500
PAGE_USERS = 500

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class History:
    """A loan as its events make it, up to the watermark (`row`, `bills`) and to the end (`loan`, `version`,
    `head_hash`).
    """

    loan: Loan
    version: int = 0
    head_hash: bytes = GENESIS
    row: LoanRow | None = None
    bills: dict[int, list[Any]] = field(default_factory=dict)  # number -> the row of bills
    last_payment_seq: int | None = None
    is_lost: bool = False  # an event could not be followed: what comes after it can't be decided again


def verify_files(
    tables: Path, journal: Path, rules: ScoreRules, progress: Progress, *, sandbox: bool | None = None
) -> Report:
    """Verify the database at these paths. Raises StoreError when there is none of this version, or when it
    belongs to the other clock than `sandbox` says.
    """
    check_there(tables, journal)
    report = Report()
    try:
        # The tables' snapshot first: the journal may then only be ahead of it.
        with_tables = connect_reader(file_uri(tables, "ro"))
        try:
            with_journal = connect_reader(file_uri(journal, "ro"))
            try:
                if sandbox is not None and schema_version(with_tables) > 0:
                    check_clock(read_clock(with_tables), sandbox=sandbox)
                _verify(with_tables, with_journal, rules, report, progress)
            finally:
                with_journal.close()
        finally:
            with_tables.close()
    except StoreError as error:
        raise StoreError(f"{tables}: {error}") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # also a message that quotes garbled bytes
        report.differ(f"the database is damaged: {error}")
    return report


def _verify(
    tables: sqlite3.Connection,
    journal: sqlite3.Connection,
    rules: ScoreRules,
    report: Report,
    progress: Progress,
) -> None:
    check_schema(tables, "tables")
    check_schema(journal, "journal")
    tables.execute("BEGIN")
    tables.execute("SELECT 1 FROM meta").fetchone()  # takes the snapshot
    journal.execute("BEGIN")
    files: list[tuple[FileKind, sqlite3.Connection]] = [("tables", tables), ("journal", journal)]
    for name, connection in files:
        for (line,) in connection.execute("PRAGMA integrity_check(10)"):
            if line != "ok":
                report.differ(f"{name} file: {line}")
    for name, connection in files:
        if not report.found:
            verify_schema(connection, name, report)
    for name, connection in files:
        if not report.found:
            verify_settings(connection, name, report)
    if report.found:
        return  # what a damaged file says is not worth comparing, and may be of any type
    for row in tables.execute("PRAGMA foreign_key_check"):
        report.differ(f"tables file: row {row[1]} of {row[0]} refers to a missing row of {row[2]}")
    if database_id(tables) != database_id(journal):
        report.differ("the journal is not the journal of these tables")
    watermark = projected_seq(tables)
    if watermark > head_seq(journal):
        report.differ(f"the tables show event {watermark}, the journal ends at {head_seq(journal)}")
    histories = _verify_journal(tables, journal, watermark, report, progress)
    _verify_loans(tables, histories, report)
    _verify_once(tables, journal, report)
    _verify_scores(tables, rules, report)
    verify_direct(tables, {history.loan.borrower_id for history in histories.values()}, report)


# The journal, and payments in step with it -------------------------------------------------------------


def _verify_journal(
    tables: sqlite3.Connection,
    journal: sqlite3.Connection,
    watermark: int,
    report: Report,
    progress: Progress,
) -> dict[int, History]:
    histories: dict[int, History] = {}
    head = head_seq(journal)
    batches = journal.execute("SELECT last_seq, digest FROM batches ORDER BY last_seq")
    batch = batches.fetchone()
    digest, hashes = GENESIS, list[bytes]()
    payments: Iterator[Sequence[Any]] = tables.execute("SELECT * FROM payments ORDER BY seq")
    if (first := journal.execute("SELECT min(seq) FROM events").fetchone()[0]) not in {None, 1}:
        report.differ(f"the journal begins at event {first}")
    for stored in events_after(journal, 0):
        report.events += 1
        if stored.seq != report.events:
            report.differ(f"event {report.events} is missing from the journal")
            break
        hashes.append(stored.hash)
        if batch is not None and stored.seq == batch[0]:
            digest, hashes = batch_digest(digest, hashes), []
            if digest != batch[1]:
                report.differ(f"the batch that ends at event {stored.seq} does not match its digest")
                digest = batch[1]
            batch = batches.fetchone()
        try:
            event = decode_event(stored.body)
            _verify_event(histories, stored, event, watermark, report)
        except Exception as error:  # noqa: BLE001 - a garbled event may make anything of the rules
            report.differ(
                f"event {stored.seq} of loan {format_id(stored.loan_id)} can't be followed:"
                f" {type(error).__name__}: {error}"
            )
            continue
        if isinstance(event, PaymentRecorded) and stored.seq <= watermark:
            _verify_payment(next(payments, None), stored, event, histories[stored.loan_id], report)
        if stored.seq % 5_000 == 0:
            progress(stored.seq, head)
    if hashes or batch is not None:
        report.differ("the journal does not end where its last batch does")
    for extra in payments:
        report.differ(f"payment row {extra[0]} has no event")
    progress(head, head)
    return histories


def _verify_event(
    histories: dict[int, History], stored: StoredEvent, event: Event, watermark: int, report: Report
) -> None:
    history = histories.get(stored.loan_id)
    name = f"event {stored.seq} of loan {format_id(stored.loan_id)}"
    previous = history.head_hash if history else GENESIS
    head = event_hash(previous, stored.loan_id, stored.version, stored.once_key, stored.body)
    if head != stored.hash:
        # The rules don't get to see it: a garbled date or tenure could keep them busy for years.
        report.differ(f"{name}: does not match its hash")
    if history is None:
        assert head == stored.hash, "a loan begins with an event that matches its hash"
        assert isinstance(event, LoanDisbursed), "a loan's first event disburses it"
        history = histories[stored.loan_id] = History(evolve(None, event))
    if stored.version != history.version + 1:
        report.differ(f"{name}: version {stored.version} follows {history.version}")
    is_first = history.version == 0
    history.version, history.head_hash = stored.version, stored.hash
    if history.is_lost or head != stored.hash:
        history.is_lost = True
        return
    if not is_first:
        history.is_lost = True  # unless the next lines come through
        expected = _decide_again(history.loan, event)
        if expected != event:
            report.differ(f"{name}: the rules give {expected}, recorded is {event}")
        history.loan = evolve(history.loan, event)
        history.is_lost = False
    if stored.kind != kind_of(event):
        report.differ(f"{name}: kind is {stored.kind}, its body is {kind_of(event)}")
    if stored.once_key != _once_key(event):
        report.differ(f"{name}: its once_key is not its own")
    if stored.seq <= watermark:
        if isinstance(event, BillIssued):
            history.bills[event.number] = [*bill_values(stored.loan_id, history.loan.terms, event), 0, 0]
        elif isinstance(event, PaymentRecorded):
            for part in event.allocations:
                if part.bill:
                    history.bills[part.bill][7] += part.interest_paise
                    history.bills[part.bill][8] += part.principal_paise
        last = stored.seq if isinstance(event, PaymentRecorded) else history.last_payment_seq
        history.row = LoanRow(history.loan, stored.version, stored.hash, last)


def _decide_again(loan: Loan, event: Event) -> Event | None:
    """Return the event that the rules give in this one's place."""
    if isinstance(event, BillIssued):
        return None if loan.closed_on is not None else next_bill(loan)
    if isinstance(event, PaymentRecorded):
        command = Repay(
            caller=event.caller,
            transaction_id=event.transaction_id,
            amount_paise=event.amount_paise,
            payment_id=event.payment_id,
            recorded_at_ms=event.recorded_at_ms,
        )
        outcome = repay(loan, command, event.paid_on)
        return outcome[0] if isinstance(outcome, list) else None
    return None


def _once_key(event: Event) -> bytes | None:
    if isinstance(event, PaymentRecorded):
        return Repay(event.caller, event.transaction_id, 0, 0, 0).once_key
    if isinstance(event, LoanDisbursed):
        return Disburse(event.borrower_id, event.terms, 0, event.idempotency_key).once_key
    return None


def _verify_payment(
    row: Sequence[Any] | None, stored: StoredEvent, event: PaymentRecorded, history: History, report: Report
) -> None:
    report.payments += 1
    expected = payment_values(stored, event, history.last_payment_seq)
    history.last_payment_seq = stored.seq
    if row is None or tuple(row) != expected:
        report.differ(f"payment row {stored.seq}: {_first_difference(row, expected)}")


# The tables ----------------------------------------------------------------------------------------


def _readable_rows(tables: sqlite3.Connection, loan_ids: list[int], report: Report) -> dict[int, LoanRow]:
    """Return the loans' rows; what no loan can have is a difference."""
    try:
        return load_rows(tables, loan_ids)
    except msgspec.ValidationError as error:
        if len(loan_ids) == 1:
            report.differ(f"loan {format_id(loan_ids[0])}: its row can't be read: {error}")
            return {}
    rows: dict[int, LoanRow] = {}
    for loan_id in loan_ids:
        rows |= _readable_rows(tables, [loan_id], report)
    return rows


def _verify_loans(tables: sqlite3.Connection, histories: dict[int, History], report: Report) -> None:
    projected = {loan_id: history for loan_id, history in histories.items() if history.row is not None}
    ids = list(projected)
    for start in range(0, len(ids), PAGE_LOANS):
        page = ids[start : start + PAGE_LOANS]
        rows = _readable_rows(tables, page, report)
        marks = ",".join("?" * len(page))
        bills: dict[int, list[Sequence[Any]]] = {}
        for bill in tables.execute(
            f"SELECT * FROM bills WHERE loan_id IN ({marks}) ORDER BY loan_id, number", page
        ):
            bills.setdefault(bill[0], []).append(bill)
        hints = {
            row[0]: row[1:]
            for row in tables.execute(
                f"SELECT id, next_billing, oldest_unpaid_bill FROM loans WHERE id IN ({marks})", page
            )
        }
        for loan_id in page:
            _verify_loan(loan_id, projected[loan_id], rows.get(loan_id), bills.get(loan_id, []), report)
            history_row = projected[loan_id].row
            assert history_row is not None
            loan = history_row.loan
            want = (loan.next_billing, loan.unpaid_bills[0].number if loan.unpaid_bills else None)
            if loan_id in hints and hints[loan_id] != want:
                report.differ(
                    f"loan {format_id(loan_id)}: (next_billing, oldest_unpaid_bill) is {hints[loan_id]},"
                    f" the journal gives {want}"
                )
    stored_loans = tables.execute("SELECT count(*) FROM loans").fetchone()[0]
    if stored_loans != len(ids):
        report.differ(f"there are {stored_loans} rows of loans, the journal knows {len(ids)}")
    stored_bills = tables.execute("SELECT count(*) FROM bills").fetchone()[0]
    if stored_bills != report.bills:
        report.differ(f"there are {stored_bills} rows of bills, the journal knows {report.bills}")


def _verify_loan(
    loan_id: int, history: History, row: LoanRow | None, bills: list[Sequence[Any]], report: Report
) -> None:
    report.loans += 1
    report.bills += len(history.bills)
    assert history.row is not None
    if row is None:
        report.differ(f"loan {format_id(loan_id)} has no row")
        return
    have = msgspec.to_builtins([row.loan, row.version, row.head_hash.hex(), row.last_payment_seq])
    want_row = history.row
    want = msgspec.to_builtins(
        [want_row.loan, want_row.version, want_row.head_hash.hex(), want_row.last_payment_seq]
    )
    if have != want:
        names = [*Loan.__struct_fields__, "version", "head_hash", "last_payment_seq"]
        pairs = zip(names, [*have[0], *have[1:]], [*want[0], *want[1:]], strict=True)
        text = "; ".join(
            f"{name} is {is_}, the journal gives {should}" for name, is_, should in pairs if is_ != should
        )
        report.differ(f"loan {format_id(loan_id)}: {text}")
    if len(bills) != len(history.bills):
        report.differ(
            f"loan {format_id(loan_id)} has {len(bills)} bills, the journal gives {len(history.bills)}"
        )
    for bill, expected in zip(bills, history.bills.values(), strict=False):
        if list(bill) != expected:
            report.differ(f"bill {bill[1]} of loan {format_id(loan_id)}: {_first_difference(bill, expected)}")


def _verify_once(tables: sqlite3.Connection, journal: sqlite3.Connection, report: Report) -> None:
    """Every key up to the watermark leads to its event. One after it may already do: a merge is under way."""
    watermark, led = indexed_seq(tables), 0
    if watermark > head_seq(journal):
        report.differ(f"the once index reaches event {watermark}, the journal ends at {head_seq(journal)}")
    for key, seq in keys_after(journal, 0):
        row = tables.execute("SELECT 1 FROM once WHERE hash = ? AND seq = ?", (key_hash(key), seq)).fetchone()
        if row is not None:
            led += 1
        elif seq <= watermark:
            report.differ(f"the once index does not lead to event {seq}")
    indexed = tables.execute("SELECT count(*) FROM once").fetchone()[0]
    if indexed != led:
        report.differ(f"the once index has {indexed} keys, the journal {led} of them")


def _verify_scores(tables: sqlite3.Connection, rules: ScoreRules, report: Report) -> None:
    for key, kept_paise, summed_paise in differing_balances(tables):
        report.differ(
            f"balance of bank history {key.hex()}: is {kept_paise} paise, its rows give {summed_paise}"
        )
    after: int | None = -1
    scale = _scale(tables, rules, report)
    while after is not None:
        page = recompute_scores(tables, after, PAGE_USERS, *scale)
        report.scores += page["checked"]
        for user_id, stored, recomputed in page["differing"]:
            report.differ(
                f"user {format_id(user_id)}: credit_score is {stored}, the bank history gives {recomputed}"
            )
        after = page["last_id"]


def _scale(tables: sqlite3.Connection, rules: ScoreRules, report: Report) -> tuple[int, ...]:
    """Return the scale that the scores were made by: after a change of it the next start makes them anew."""
    known = tables.execute("SELECT value FROM meta WHERE key = 'score_rules'").fetchone()
    try:
        if known is not None:
            return msgspec.json.decode(known[0], type=tuple[int, int, int, int, int])
    except (TypeError, msgspec.DecodeError) as error:
        report.differ(f"the scale of scores is damaged: {error}")
    return msgspec.structs.astuple(rules)


def _first_difference(have: Sequence[Any] | None, want: Sequence[Any]) -> str:
    if have is None:
        return "missing"
    for place, (is_, should) in enumerate(zip(have, want, strict=False)):
        if is_ != should:
            return f"column {place + 1} is {is_!r}, the journal gives {should!r}"
    return "other columns"
