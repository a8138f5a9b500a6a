"""The canaries: faults that somebody might make one day, each with the promise it breaks and the harness that
must notice. What stands first in a change stands exactly once in the file today.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.canaries import harness
from tests.canaries.harness import Harness

Change = tuple[str, str, str]  # a file of ledgerd/, its text, and the text in its place


@dataclass(frozen=True)
class Canary:
    name: str
    breaks: str
    killed_by: Harness
    changes: tuple[Change, ...]


DURABLE = "What was acknowledged is on disk"
ONCE = "A payment counts exactly once"
EXACT = "Every figure is exact to the paisa"
OWN = "Nobody sees or does what is not theirs"
BOUNDED = "Everything has a limit"
SHOWS = "Damage shows"

CANARIES = (
    Canary(
        "drop the sync",
        DURABLE,
        harness.LIFE,  # by the guard: nothing starts on a connection that would not sync
        (("storage/sqlite.py", "PRAGMA synchronous = FULL", "PRAGMA synchronous = OFF"),),
    ),
    Canary(
        "drop the sync and its guard",
        DURABLE,
        harness.POWER,
        (
            ("storage/sqlite.py", "PRAGMA synchronous = FULL", "PRAGMA synchronous = OFF"),
            ("storage/sqlite.py", " or synchronous != 2", ""),
        ),
    ),
    Canary(
        "answer before commit",
        DURABLE,
        harness.SCHEDULES,
        (
            (
                "actors/loan_actor.py",
                "Accepted(self.loan_id, events[-1], len(events)), durable=False)",
                "Accepted(self.loan_id, events[-1], len(events)), durable=True)",
            ),
        ),
    ),
    Canary(
        "swallow a COMMIT error",
        DURABLE,
        harness.SIMULATION,
        (
            (
                "storage/journal.py",
                '        connection.execute("COMMIT")\n',
                (
                    '        try:\n            connection.execute("COMMIT")\n'
                    "        except sqlite3.Error:\n            pass\n"
                ),
            ),
        ),
    ),
    Canary(
        "recovery skips the tail",
        DURABLE,
        harness.SIMULATION,
        (
            (
                "storage/journal.py",
                "events_after(connection, projected_seq)",
                "events_after(connection, self.head_seq)",
            ),
        ),
    ),
    Canary(
        "skip the duplicate check",
        ONCE,
        harness.SCHEDULES,
        (
            (
                "storage/journal.py",
                "            if owner is not None:\n",
                "            if owner is None is not None:\n",
            ),
        ),
    ),
    Canary(
        "the once index forgets a merge's keys",
        ONCE,
        harness.SIMULATION,
        (
            (
                "storage/engine.py",
                "        if watermark is not None:\n            self._keys.drop()",
                "        self._keys.drop()",
            ),
        ),
    ),
    Canary(
        "a start forgets the keys that were not indexed",
        ONCE,
        harness.KILLS,
        (
            (
                "storage/journal.py",
                "keys_after(connection, indexed_seq)",
                "keys_after(connection, self.head_seq)",
            ),
        ),
    ),
    Canary(
        "a replay changes the balance",
        ONCE,
        harness.LIFE,
        (
            (
                "actors/loan_actor.py",
                "            return Replayed(owner_loan_id, event)\n",
                (
                    "            self.loan = evolve(self.loan, event)\n"
                    "            return Replayed(owner_loan_id, event)\n"
                ),
            ),
        ),
    ),
    Canary(
        "bill twice after a crash",
        ONCE,
        harness.BILLING,
        (
            (
                "scheduler/billing.py",
                (
                    "        await self._store.project_through(self._registry.committer.head_seq)\n"
                    "        run.due"
                ),
                "        run.due",
            ),
            (
                "storage/engine.py",
                "if stored.version > version:",
                "if stored.version > version + len(tail):",
            ),
            (
                "storage/journal.py",
                "if last is not None and last != entry.base_version:",
                "if last is not None and last < entry.base_version:",
            ),
        ),
    ),
    Canary(
        "count rows of an import twice after a kill",
        ONCE,
        harness.IMPORTS,
        (
            (
                "storage/transactions.py",
                '    first_id = decoded.pop("parts_from", None)\n',
                '    first_id = decoded.pop("parts", None)\n',
            ),
        ),
    ),
    Canary(
        "passivate a busy actor",
        ONCE,
        harness.SCHEDULES,
        (("actors/registry.py", "            if actor.idle:\n", "            if not actor.mailbox:\n"),),
    ),
    Canary(
        "take a mailbox from its end",
        "A loan's messages are decided in the order they came",
        harness.SCHEDULES,
        (("actors/registry.py", "actor.mailbox.pop(0)", "actor.mailbox.pop()"),),
    ),
    Canary(
        "a refusal changes the loan",
        "A refusal changes nothing",
        harness.SCHEDULES,
        (
            (
                "actors/loan_actor.py",
                "            pending = Pending(self, message, outcome, durable=not asks)\n",
                (
                    "            self.loan = self.loan and bring_up_to_date(self.loan, today)[1]\n"
                    "            pending = Pending(self, message, outcome, durable=not asks)\n"
                ),
            ),
        ),
    ),
    Canary(
        "an unbounded mailbox",
        BOUNDED,
        harness.SCHEDULES,
        (
            (
                "actors/registry.py",
                "if len(actor.mailbox) + len(actor.pending) >= limits.mailbox:",
                "if len(actor.mailbox) + len(actor.pending) >= limits.in_flight:",
            ),
        ),
    ),
    Canary(
        "ignore the reserve of a full disk",
        BOUNDED,
        harness.PAYMENTS,
        (
            (
                "storage/room.py",
                "        if self.is_short:\n",
                "        if self.is_short and self.free_bytes is None:\n",
            ),
        ),
    ),
    Canary(
        "a body one byte too large",
        BOUNDED,
        harness.BODIES,
        (
            (
                "http/request_body.py",
                "content.total_bytes > limit_bytes:",
                "content.total_bytes > limit_bytes + 1:",
            ),
        ),
    ),
    Canary(
        ">= for >",
        EXACT,
        harness.LIFE,
        (
            (
                "domain/loan.py",
                "if command.amount_paise > payoff_paise:",
                "if command.amount_paise >= payoff_paise:",
            ),
        ),
    ),
    Canary(
        "float a rounding",
        EXACT,
        harness.LIVES,
        (
            (
                "domain/money.py",
                "return divide_half_even(amount_paise * percent_hundredths, 10_000)",
                "return int(amount_paise * percent_hundredths / 10_000 + 0.5)",
            ),
        ),
    ),
    Canary(
        "read money as a float",
        EXACT,
        harness.LIFE,
        (
            (
                "domain/money.py",
                'int(whole + fraction if len(fraction) == 2 else f"{whole}{fraction}0")',
                "int(float(text) * 100)",
            ),
        ),
    ),
    Canary(
        "half up for half even",
        EXACT,
        harness.LIVES,
        (("domain/money.py", "(twice == denominator and quotient % 2 == 1)", "twice == denominator"),),
    ),
    Canary(
        "interest of one day more",
        EXACT,
        harness.LIFE,
        (
            (
                "domain/loan.py",
                "days = day - self.accrued_through\n",
                "days = day - self.accrued_through + 1\n",
            ),
        ),
    ),
    Canary(
        "principal before interest",
        EXACT,
        harness.LIVES,
        (
            (
                "domain/loan.py",
                (
                    "        interest = min(left, bill.interest_paise)\n"
                    "        principal = min(left - interest, bill.principal_paise)\n"
                ),
                (
                    "        principal = min(left, bill.principal_paise)\n"
                    "        interest = min(left - principal, bill.interest_paise)\n"
                ),
            ),
        ),
    ),
    Canary(
        "a missed night is not made up for",
        EXACT,
        harness.YEAR,
        (
            (
                "domain/loan.py",
                "        loan = add_bill(loan, bill)\n    return events, loan",
                "        return events, add_bill(loan, bill)\n    return events, loan",
            ),
        ),
    ),
    Canary(
        "the date goes back with the wall's clock",
        EXACT,
        harness.SIMULATION,
        (("clock.py", "max(self._day, datetime", "max(0, datetime"),),
    ),
    Canary(
        "widen the algorithms",
        OWN,
        harness.FORGERS,
        (
            ("http/tokens.py", '_ALGORITHMS = ["EdDSA"]', '_ALGORITHMS = ["EdDSA", "HS256"]'),
            (
                "http/tokens.py",
                "key.public,\n",
                'key.public if header["alg"] == "EdDSA" else key.public.public_bytes_raw(),\n',
            ),
        ),
    ),
    Canary(
        "an expired token that was seen before",
        OWN,
        harness.ROUTES,
        (
            (
                "http/tokens.py",
                "        if caller is not None:\n            self._verified.move_to_end(token)\n",
                "        if caller is not None:\n            return caller\n",
            ),
        ),
    ),
    Canary(
        "logging out ends nothing",
        OWN,
        harness.ROUTES,
        (("http/accounts.py", "        self._revocations.revoke(caller.login_id, expires_at_s)\n", ""),),
    ),
    Canary(
        "skip the owner check of a look",
        OWN,
        harness.ROUTES,
        (
            (
                "actors/loan_actor.py",
                "if loan is None or message.borrower_id not in (None, loan.borrower_id):",
                "if loan is None:",
            ),
        ),
    ),
    Canary(
        "skip the owner check of a payment",
        OWN,
        harness.ROUTES,
        (
            (
                "domain/loan.py",
                "if loan is None or command.borrower_id not in (None, loan.borrower_id):",
                "if loan is None:",
            ),
        ),
    ),
    Canary(
        "403 for what is somebody else's",
        OWN,
        harness.ROUTES,
        (
            (
                "http/loans.py",
                "    if isinstance(answer, Rejection):\n        raise loan_not_found()\n",
                (
                    "    if isinstance(answer, Rejection):\n"
                    '        raise Problem("insufficient-scope", "This loan is not yours.")\n'
                ),
            ),
        ),
    ),
    Canary(
        "another owner is not fenced off",
        "One process writes the journal",
        harness.STORE,
        (("storage/engine.py", "if epoch != self.opened.epoch:", "if epoch > self.opened.epoch:"),),
    ),
    Canary(
        "forget a hash link",
        SHOWS,
        harness.LIFE,
        (("actors/loan_actor.py", "head = event_hash(head, ", "head = event_hash(self.head_hash, "),),
    ),
    Canary(
        "verify takes digests on trust",
        SHOWS,
        harness.TAMPERING,
        (("storage/verify.py", "if digest != batch[1]:", "if len(digest) != len(batch[1]):"),),
    ),
)
