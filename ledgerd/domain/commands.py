"""What may be asked of a loan, in the imperative, and the refusals, one code a rule."""

from typing import Literal

import msgspec

from ledgerd.domain.events import Due, Event, LoanDisbursed, PaymentRecorded, Terms

RejectionCode = Literal[
    "loan-not-found",
    "transaction-id-conflict",
    "idempotency-key-conflict",
    "loan-closed",
    "no-such-bill",
    "past-due-unpaid",
    "amount-exceeds-payoff",
    "storage-full",  # no rule's: the actors refuse what the disk may have no room for
]


class Disburse(msgspec.Struct, frozen=True, gc=False):
    """Lend: the first command of a loan."""

    borrower_id: int
    terms: Terms
    recorded_at_ms: int
    idempotency_key: str | None = None

    @property
    def once_key(self) -> bytes | None:
        """Who may disburse this once: the borrower's own key, when one was sent."""
        return (
            None
            if self.idempotency_key is None
            else f"a:{self.borrower_id:016x}:{self.idempotency_key}".encode()
        )


class Repay(msgspec.Struct, frozen=True, gc=False):
    """Pay towards a loan. `caller` is the namespace that the transaction_id lives in."""

    caller: str
    transaction_id: str
    amount_paise: int
    payment_id: int
    recorded_at_ms: int
    borrower_id: int | None = None  # None: a client, who may pay any loan
    for_bill: int | None = None

    @property
    def once_key(self) -> bytes:
        """Whose payment this is: counted once, for ever."""
        return payment_key(self.caller, self.transaction_id)


class IssueBills(msgspec.Struct, frozen=True, gc=False):
    """Issue every bill dated up to and including `through`, a day number."""

    through: int

    @property
    def once_key(self) -> None:
        """A bill is kept single by its number, not by a key."""
        return


Command = Disburse | Repay | IssueBills


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """A refusal, as a value: nothing was done."""

    code: RejectionCode
    payoff_paise: int | None = None
    unpaid_bills: tuple[Due, ...] = ()


def payment_key(caller: str, transaction_id: str) -> bytes:
    """Return the once_key of a payment."""
    return f"p:{caller}:{transaction_id}".encode()


def repeats(command: Command, loan_id: int, owner_loan_id: int, owner: Event) -> bool:
    """Return whether the command asks again for what the owner of its once_key already is; otherwise the key
    conflicts.
    """
    if isinstance(command, Repay):
        return (
            isinstance(owner, PaymentRecorded)
            and owner_loan_id == loan_id
            and owner.amount_paise == command.amount_paise
        )
    if isinstance(command, Disburse):
        return isinstance(owner, LoanDisbursed) and _body(owner.terms) == _body(command.terms)
    return False


def _body(terms: Terms) -> tuple[int, int, int, str]:
    """What a borrower sends to ask for a loan; the rest of the terms is the lender's."""
    return terms.amount_paise, terms.apr_hundredths, terms.tenure, terms.plan
