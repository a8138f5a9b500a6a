"""What every answer of a life is held to, once it is over, by somebody who has the files and the rules on
paper.

The journal is read as plain rows, the money is `tests.reference`'s, and nothing of ledgerd's is used but its
offline `verify`, as one more opinion. A call lies between the step that sent it and the step that heard its
answer. What it says must be true of its loan after some version of the journal that is not older than what
any call that had ended before had seen, and not newer than what had been asked for by its end.
"""

from __future__ import annotations

import copy
import datetime as dt
import sqlite3
from bisect import bisect_left
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any

import msgspec

from tests.reference import ReferenceLoan, rupees
from tests.simulation.life import APPLIED, Call, Life

REPLAYED = 200


@dataclass
class Payment:
    """A payment of the journal."""

    loan_id: int
    version: int
    payment_id: int
    caller: str
    transaction_id: str
    paid_on: int
    amount_paise: int
    receipt: dict[str, Any]


@dataclass
class History:
    """One loan: what the reference says it was after each version, and who asked for what since when."""

    borrower_id: int = 0
    key: str | None = None
    terms: tuple[Any, ...] = ()
    disbursed_on: int = 0
    states: list[ReferenceLoan | None] = field(default_factory=lambda: [None])
    dates: list[int] = field(default_factory=lambda: [0])
    payments: dict[int, Payment] = field(default_factory=dict)  # by version
    asked_at: dict[int, int] = field(default_factory=dict)  # version -> the step of its first request

    def at(self, version: int, day: int) -> ReferenceLoan | None:
        """What the loan was after a version, on a day."""
        state = self.states[version]
        if state is None or day < self.dates[version]:
            return None
        state = copy.deepcopy(state)
        state.advance_to(dt.date.fromordinal(day))
        return state


class Laws:
    """Judges a life that is over; AssertionError when something is not as it must be."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.histories: dict[int, History] = defaultdict(History)
        self.owners: dict[tuple[str, str], Payment] = {}
        self.borrowed: dict[tuple[int, str], int] = {}
        self._read_journal()
        self._ask_for_what_is_there()
        self._seen = self._versions_seen()

    def check(self) -> None:
        for call in self.life.calls:
            try:
                getattr(self, f"_{call.kind}")(call)
            except AssertionError as error:
                error.add_note(f"{call}")
                raise

    # The journal -------------------------------------------------------------------------------------

    def _read_journal(self) -> None:
        with closing(sqlite3.connect(self.life.disk.path("journal"))) as journal:
            assert journal.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            rows = journal.execute("SELECT seq, loan_id, version, once_key, body FROM events ORDER BY seq")
            for number, (seq, loan_id, version, key, body) in enumerate(rows, 1):
                assert seq == number, "the journal has no gaps"
                history = self.histories[loan_id]
                assert version == len(history.states), "nor has a loan"
                self._follow(loan_id, history, version, key, msgspec.msgpack.decode(body))

    def _follow(
        self, loan_id: int, history: History, version: int, key: bytes | None, body: list[Any]
    ) -> None:
        tag, *fields = body
        state = copy.deepcopy(history.states[-1])
        if tag == "disbursed":
            assert version == 1
            borrower_id, terms, _, idempotency_key = fields
            amount, apr, rate, tenure, plan, day, cycle_days, due_days, share = terms
            history.borrower_id, history.key, history.disbursed_on = borrower_id, idempotency_key, day
            history.terms = (amount, apr, rate, tenure, plan)
            state = ReferenceLoan(
                Fraction(amount, 100),
                _percent(apr),
                tenure,
                plan,
                dt.date.fromordinal(day),
                cycle_days=cycle_days,
                due_days=due_days,
                min_due_percent=_percent(share),
            )
            if idempotency_key is not None:
                assert key == f"a:{borrower_id:016x}:{idempotency_key}".encode()
                assert (borrower_id, idempotency_key) not in self.borrowed, "lent twice"
                self.borrowed[borrower_id, idempotency_key] = loan_id
        elif tag == "billed":
            assert state is not None
            number, day, *figures = fields
            assert dt.date.fromordinal(day) > state.today
            state.advance_to(dt.date.fromordinal(day))
            bill = state.issued[-1]
            assert len(state.issued) == number, "each cycle is billed once, in order"
            assert bill.billing_date == state.today
            assert [bill.interest, bill.principal_due, bill.past_due] == figures
        else:
            assert tag == "paid"
            assert state is not None
            day = self._paid(loan_id, history, version, state, fields)
        history.states.append(state)
        history.dates.append(day)

    def _paid(
        self, loan_id: int, history: History, version: int, state: ReferenceLoan, fields: list[Any]
    ) -> int:
        payment_id, caller, transaction_id, day, _, amount_paise = fields[:6]
        bills = len(state.issued)
        state.advance_to(dt.date.fromordinal(day))
        assert len(state.issued) == bills, "what was due is billed before a payment"
        receipt = state.pay(rupees(Fraction(amount_paise)))
        assert "refused" not in receipt, receipt
        assert (caller, transaction_id) not in self.owners, "counted twice"
        payment = Payment(loan_id, version, payment_id, caller, transaction_id, day, amount_paise, receipt)
        history.payments[version] = self.owners[caller, transaction_id] = payment
        return day

    def _ask_for_what_is_there(self) -> None:
        """Nothing is in the ledger that nobody asked for; and since when it was asked for."""
        first: dict[tuple[Any, ...], int] = {}
        for call in self.life.calls:
            args = call.args
            if call.kind == "pay":
                named = (args["caller"], args["transaction_id"], args["loan_id"], args["amount_paise"])
            elif call.kind == "apply":
                named = (args["borrower_id"], args["key"], args["terms"])
            else:
                continue
            first.setdefault(named, call.sent_at)
        for loan_id, history in self.histories.items():
            history.asked_at[1] = first[history.borrower_id, history.key, history.terms]
            for version, paid in history.payments.items():
                history.asked_at[version] = first[
                    paid.caller, paid.transaction_id, loan_id, paid.amount_paise
                ]

    # Between which versions ----------------------------------------------------------------------------

    def _versions_seen(self) -> dict[int, list[tuple[int, int]]]:
        """For each loan, by the step of an answer, the version that it shows to be there."""
        seen: dict[int, list[tuple[int, int]]] = defaultdict(lambda: [(0, 0)])
        for call in sorted(self.life.calls, key=lambda each: each.answered_at):
            version = 0
            loan_id = call.args.get("loan_id", 0)
            if call.kind in ("view", "page") and call.status == 200:
                version = call.body["version"]
            elif call.kind in ("pay", "look_up") and call.status in (APPLIED, REPLAYED):
                owner = self.owners.get((call.args["caller"], call.args["transaction_id"]))
                assert owner is not None, f"acknowledged, and lost: {call}"
                loan_id, version = owner.loan_id, owner.version
            elif call.kind == "apply" and call.status in (APPLIED, REPLAYED):
                loan_id, version = call.body["loan_id"], 1
            if version > seen[loan_id][-1][1]:
                seen[loan_id].append((call.answered_at, version))
        return seen

    def _versions(self, call: Call) -> range:
        """The versions of its loan that may explain a call."""
        loan_id = call.args["loan_id"]
        history = self.histories.get(loan_id) or History()
        lowest = max(version for step, version in self._seen[loan_id] if step < call.sent_at or version == 0)
        highest = len(history.states) - 1
        for version, step in history.asked_at.items():
            if step > call.answered_at:
                highest = min(highest, version - 1)
        return range(lowest, highest + 1)

    def _days(self, call: Call) -> range:
        return range(call.earliest_day, call.latest_day + 1)

    # Answers -------------------------------------------------------------------------------------------

    def _pay(self, call: Call) -> None:
        if call.status in (500, 503):
            return
        args, body = call.args, call.body
        owner = self.owners.get((args["caller"], args["transaction_id"]))
        problem = body.get("problem")
        if call.status in (APPLIED, REPLAYED):
            assert owner is not None, "acknowledged, and lost"
            assert (owner.loan_id, owner.amount_paise) == (args["loan_id"], args["amount_paise"])
            self._is_receipt(owner, body, replayed=call.status == REPLAYED)
            assert owner.paid_on <= call.latest_day
            if call.status == APPLIED:
                others = [c for c in self.life.calls if c.kind == "pay" and c.status == APPLIED]
                assert [c.body["payment_id"] for c in others].count(body["payment_id"]) == 1
                assert owner.version in self._versions(call)
                assert owner.paid_on >= call.earliest_day
        elif problem == "transaction-id-conflict":
            assert owner is not None
            assert (owner.loan_id, owner.amount_paise) != (args["loan_id"], args["amount_paise"])
            assert self.histories[owner.loan_id].asked_at[owner.version] < call.answered_at
        elif problem == "loan-not-found":
            history = self.histories.get(args["loan_id"])
            assert history is None or args["borrower_id"] not in (None, history.borrower_id)
        else:
            self._is_refusal(call, owner)

    def _is_receipt(self, owner: Payment, body: dict[str, Any], *, replayed: bool) -> None:
        assert body["replayed"] is replayed
        assert int(body["payment_id"], 16) == owner.payment_id
        assert body["transaction_id"] == owner.transaction_id
        assert {name: body[name] for name in owner.receipt} == owner.receipt

    def _is_refusal(self, call: Call, owner: Payment | None) -> None:
        args, history = call.args, self.histories[call.args["loan_id"]]
        wanted = {"refused": call.body["problem"], **call.body}
        del wanted["problem"]
        if owner is not None and owner.loan_id == args["loan_id"]:
            # Its key was free yet: the version that took it came after.
            assert not any(
                step < call.sent_at and version >= owner.version
                for step, version in self._seen[owner.loan_id]
            ), "a retry was refused"
        for version in self._versions(call):
            for day in self._days(call):
                state = history.at(version, max(day, history.dates[version]))
                if state and state._refusal(Fraction(args["amount_paise"]), args["for_bill"]) == wanted:
                    return
        raise AssertionError("no state of the loan explains this refusal")

    def _apply(self, call: Call) -> None:
        args, body = call.args, call.body
        if call.status in (APPLIED, REPLAYED):
            history = self.histories.get(body["loan_id"])
            assert history is not None, "lent, and lost"
            assert (history.borrower_id, history.key) == (args["borrower_id"], args["key"])
            assert history.terms == args["terms"]
            assert history.disbursed_on == body["disbursed_on"] <= call.latest_day
        elif call.status == 409:
            assert body["problem"] == "idempotency-key-conflict"
            owner = self.histories[self.borrowed[args["borrower_id"], args["key"]]]
            assert owner.terms != args["terms"]
        else:
            assert call.status in (500, 503)

    def _view(self, call: Call) -> None:
        if self._is_no_answer(call):
            return
        history = self.histories[call.args["loan_id"]]
        assert call.args["borrower_id"] in (None, history.borrower_id)
        self._is_standing(call)

    def _is_standing(self, call: Call) -> ReferenceLoan:
        """Hold what a loan is said to be against what it was; return that."""
        body, history = call.body, self.histories[call.args["loan_id"]]
        version, day = body["version"], body["today"]
        assert version in self._versions(call), "an older state than was seen before, or one of the future"
        assert call.earliest_day <= day <= max(call.latest_day, history.dates[version])
        state = history.at(version, day)
        assert state is not None
        assert body["outstanding"] == state.outstanding()
        assert body["status"] == state.status()
        assert body["past_due"] == state.past_due()
        assert body["next_due"] == state.next_due()
        return state

    def _page(self, call: Call) -> None:
        if self._is_no_answer(call):
            return
        version, history = call.body["version"], self.histories[call.args["loan_id"]]
        state = self._is_standing(call)
        paid = [each.payment_id for v, each in sorted(history.payments.items()) if v <= version]
        assert call.body["payment_ids"] == paid[::-1]
        assert call.body["bills"] == state.bills()

    def _is_no_answer(self, call: Call) -> bool:
        if call.status == 404:
            history = self.histories.get(call.args["loan_id"])
            assert history is None or call.args.get("borrower_id") not in (None, history.borrower_id)
        return call.status in (404, 500, 503)

    def _look_up(self, call: Call) -> None:
        owner = self.owners.get((call.args["caller"], call.args["transaction_id"]))
        if call.status == 200:
            assert owner is not None
            self._is_receipt(owner, call.body, replayed=False)
        elif call.status == 404 and owner is not None:
            assert not any(
                step < call.sent_at and version >= owner.version
                for step, version in self._seen[owner.loan_id]
            ), "it was there, and is not found"

    # The whole -----------------------------------------------------------------------------------------

    def check_whole(self) -> None:
        """Nothing was gained or lost, the date never went back, and bills lie a cycle apart."""
        dated = [(call, day) for call in self.life.calls if (day := call.day)]
        heard = sorted((call.answered_at, day) for call, day in dated)
        latest = [0, *accumulate((day for _, day in heard), max)]
        for call, day in dated:
            assert day >= latest[bisect_left(heard, (call.sent_at, 0))], f"the date went back: {call}"
        for history in self.histories.values():
            state = history.states[-1]
            assert state is not None
            assert state.disbursed == state.principal + state.principal_received
            assert state.paid_in == state.principal_received + state.interest_received
            for one, other in pairwise(state.issued):
                assert (other.billing_date - one.billing_date).days == state.cycle_days


def _percent(hundredths: int) -> str:
    return f"{hundredths // 100}.{hundredths % 100:02d}"
