"""The ceiling of a batch job: all due loans billed by two set-based statements in PostgreSQL, committed once.

The tables and the arithmetic are in sql_set.sql; after each run ledgerd's own rules bill a sample of the same
loans, and every figure must agree.
"""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path
from typing import Final

from bench.peers.postgres import Cluster
from ledgerd.domain.commands import IssueBills
from ledgerd.domain.events import BillIssued, Terms
from ledgerd.domain.loan import Loan, UnpaidBill, decide, evolve

DATABASE: Final = "sql_set"
TODAY: Final = date(2026, 1, 31)
SAMPLE: Final = 1_000
TENURE_MAX: Final = 24

# Loans of 1,000.00 to 1,000,000.00 between their first bill and the last cycle; each third one has its last
# bill unpaid, and fractions of a paisa stay accrued.
LEND: Final = """
INSERT INTO loans
SELECT n, 1 + n % {tenure_max}, 1 + n % 90, 300, 30, 15,
    100000 + n * 7919 % 99900000, n * 104729 % 100000, date '{today}' - 30, issued, date '{today}',
    CASE WHEN owes THEN n % 3000 ELSE 0 END, CASE WHEN owes THEN n % 100000 ELSE 0 END
FROM (
    SELECT n, issued, n % 3 = 0 AND issued > 0 AS owes
    FROM generate_series(1, {loans}::bigint) AS n,
        LATERAL (SELECT (n % (1 + n % {tenure_max}))::integer) AS bills (issued)
) AS made;
CREATE INDEX loans_next_billing ON loans (next_billing);
VACUUM ANALYZE;
CHECKPOINT;
"""

BILL: Final = """
BEGIN;
INSERT INTO bills
SELECT id, bills_issued + 1, next_billing, next_billing + due_days, accrued(loans) / 100000,
    principal_due(loans), billed_interest_paise + billed_principal_paise
FROM loans WHERE next_billing <= date '{today}';
UPDATE loans SET
    accrued_units = accrued(loans) % 100000,
    accrued_through = next_billing,
    bills_issued = bills_issued + 1,
    next_billing = next_billing + cycle_days,
    billed_interest_paise = billed_interest_paise + accrued(loans) / 100000,
    billed_principal_paise = billed_principal_paise + principal_due(loans)
WHERE next_billing <= date '{today}';
COMMIT;
"""

STATE: Final = """
SELECT tenure, daily_rate_thousandths, min_due_hundredths, cycle_days, due_days,
    principal_paise, accrued_units, accrued_through - date '0001-01-01' + 1, bills_issued,
    next_billing - date '0001-01-01' + 1, billed_interest_paise, billed_principal_paise
FROM loans WHERE id % {step} = 0 ORDER BY id
"""
BILLS: Final = """
SELECT number, billing_date - date '0001-01-01' + 1, interest_paise, principal_due_paise, past_due_paise
FROM bills WHERE loan_id % {step} = 0 ORDER BY loan_id
"""


def bill_s(cluster: Cluster, loans: int) -> float:
    """Make a book of loans that are due, and return in how many seconds it was billed.

    Raises RuntimeError when a loan was left out, or a bill of the sample is not what ledgerd's rules say.
    """
    cluster.new_database(DATABASE)
    schema = Path(__file__).with_suffix(".sql").read_text()
    cluster.psql(schema + LEND.format(loans=loans, today=TODAY, tenure_max=TENURE_MAX), DATABASE)
    step = loans // SAMPLE | 1  # odd, so that no pattern of the numbers is left out
    due = [numbers(line) for line in cluster.psql(STATE.format(step=step), DATABASE).splitlines()]
    statements = BILL.format(today=TODAY)
    started_s = time.perf_counter()
    cluster.psql(statements, DATABASE)
    seconds = time.perf_counter() - started_s
    billed = int(cluster.psql("SELECT count(*) FROM bills", DATABASE))
    if billed != loans:
        raise RuntimeError(f"sql-set: {billed} of {loans} loans were billed")
    bills = [numbers(line) for line in cluster.psql(BILLS.format(step=step), DATABASE).splitlines()]
    after = [numbers(line) for line in cluster.psql(STATE.format(step=step), DATABASE).splitlines()]
    for before, bill, state in zip(due, bills, after, strict=True):
        check(before, bill, state)
    return seconds


def check(before: list[int], bill: list[int], after: list[int]) -> None:
    """Bill one loan by ledgerd's rules, and hold the row of `bills` and the loan's new row against it."""
    loan = loan_of(before)
    events = decide(loan, IssueBills(TODAY.toordinal()), TODAY.toordinal())
    expected = BillIssued(*bill)
    if events != [expected]:
        raise RuntimeError(f"sql-set billed {expected}, the rules {events}, of {loan}")
    billed = evolve(loan, expected)
    figures = [billed.accrued_units, billed.accrued_through, billed.bills_issued, billed.next_billing]
    if after[6:] != [*figures, billed.billed_interest_paise, billed.billed_principal_paise]:
        raise RuntimeError(f"sql-set left {after}, the rules {billed}")


def loan_of(row: list[int]) -> Loan:
    """A row of `loans`, in the order of STATE, as the rules know it."""
    tenure, rate, min_due, cycle_days, due_days, principal, units, through, issued, next_billing, *owed = row
    lent_on = next_billing - cycle_days * (issued + 1)
    terms = Terms(principal, 0, rate, tenure, "min_due", lent_on, cycle_days, due_days, min_due)
    unpaid = (UnpaidBill(issued, *owed),) if sum(owed) else ()
    return Loan(0, terms, principal, units, through, issued, unpaid, 0, 0, None)


def numbers(line: str) -> list[int]:
    return [int(text) for text in line.split("|")]
