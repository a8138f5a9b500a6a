"""The payments of one call, an array or a stream: put to their loans in the order sent, and shown in it.

What holds: at most WINDOW of them are held between being read and being shown, so whoever doesn't take the
results has no more payments put; a full mailbox, and too much in flight, mean waiting; no turn of the loop
decides or shows more than CHUNK. No future, task, request or response is made for a payment. Used by
batches.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, Final

import msgspec

from ledgerd.actors.messages import Answer, Message, Overloaded
from ledgerd.domain.commands import Repay
from ledgerd.http.bodies import decode_json, is_transaction_id, quoted_names
from ledgerd.http.endpoint import problem_of
from ledgerd.http.overdue import Late
from ledgerd.http.payloads import MakePayment, PaymentResult, ProblemShown, Receipt
from ledgerd.http.payments import order, reply_or_problem
from ledgerd.http.problems import Problem, problem_document
from ledgerd.http.route import Route
from ledgerd.http.services import Services
from ledgerd.http.tokens import Caller
from ledgerd.storage.ports import StoreError

WINDOW: Final = 2_000  # payments: two batches of the committer, one on disk while the next is decided
CHUNK: Final = 128  # payments, before others run
BUSY_PAUSE_S: Final = 0.02

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(MakePayment)
_names = quoted_names(MakePayment)


class _Named(msgspec.Struct):
    """A payment of which only the name is of interest."""

    transaction_id: str


_named = msgspec.json.Decoder(_Named)


class Slot:
    """The place of one payment; an actors' `ReplyTo`."""

    __slots__ = ("_payments", "command", "loan_id", "outcome", "transaction_id")

    def __init__(self, payments: InOrder) -> None:
        self._payments = payments
        self.transaction_id: str | None = None  # as far as it could be read
        self.loan_id = 0
        self.command: Repay | None = None
        self.outcome: Answer | Exception | None = None

    def done(self) -> bool:
        """Return whether it has an outcome already: one that came too late is passed over."""
        return self.outcome is not None

    def set_result(self, answer: Answer) -> None:
        """Hear the Answer."""
        self.outcome = answer
        self._payments.look_at(self)

    def set_exception(self, error: Exception) -> None:
        """Hear that the outcome is unknown."""
        self.outcome = error
        self._payments.look_at(self)


class InOrder:
    """The payments of one call. `stall_s` is how long the next result may take; None: as long as it does."""

    def __init__(
        self, services: Services, route: Route, caller: Caller, request_id: str, stall_s: float | None = None
    ) -> None:
        self._services = services
        self._registry = services.registry
        self._route = route
        self._caller = caller
        self._request_id = request_id
        self._stall_s = stall_s
        self._line_bytes = services.config.limits.line_bytes
        self._slots: deque[Slot] = deque()  # oldest first
        self._ready = asyncio.Event()  # there is news of the oldest, or nothing more comes
        self._roomy = asyncio.Event()
        self._feeding: asyncio.Task[None] | None = None
        self._unknown: Problem | None = None
        self.stopped_by: Exception | None = None  # why not everything was put

    # In ------------------------------------------------------------------------------------------

    def read(self, sent: bytes) -> Slot:
        """Make one payment of its JSON. What is wrong with it is its outcome."""
        slot = Slot(self)
        try:
            self._check_size(sent)
            body = decode_json(_decoder, sent, _names)
            slot.loan_id, slot.command = order(self._services, self._caller, body)
            slot.transaction_id = body.transaction_id
        except Exception as error:  # noqa: BLE001 - a refusal, or a bug: it is answered
            slot.outcome = error
            slot.transaction_id = self._transaction_id(sent)
        return slot

    def _check_size(self, sent: bytes) -> None:
        if len(sent) > self._line_bytes:
            raise Problem("body-too-large", f"A payment may have {self._line_bytes} bytes.")

    def _transaction_id(self, sent: bytes) -> str | None:
        try:
            name = _named.decode(sent[: self._line_bytes]).transaction_id
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            return None
        return name if is_transaction_id(name) else None

    def feed(self, source: Coroutine[Any, Any, None]) -> None:
        """Begin: `source` puts payments until it ends; what it raises is why it stopped."""
        self._feeding = asyncio.get_running_loop().create_task(source)
        self._feeding.add_done_callback(self._fed)

    def _fed(self, feeding: asyncio.Task[None]) -> None:
        error = None if feeding.cancelled() else feeding.exception()
        if self.stopped_by is None and isinstance(error, Exception):
            self.stopped_by = error
        self._ready.set()

    def stop(self, reason: Exception) -> None:
        """Put nothing more. What was put is shown all the same."""
        if self._feeding is not None and not self._feeding.done():
            self.stopped_by = reason
            self._feeding.cancel()

    def close(self) -> None:
        """Put nothing more: nobody takes the results."""
        if self._feeding is not None:
            self._feeding.cancel()

    async def put(self, slots: Iterable[Slot]) -> None:
        """Put payments, as there is room for them."""
        for number, slot in enumerate(slots):
            if number % CHUNK == 0:
                await asyncio.sleep(0)
            while len(self._slots) >= WINDOW:
                self._roomy.clear()
                await self._roomy.wait()
            self._slots.append(slot)
            self.look_at(slot)
            if slot.command is not None:
                message = Message(slot.command, None, slot)
                if not self._put(slot, message):
                    await self._put_later(slot, message)

    async def _put_later(self, slot: Slot, message: Message) -> None:
        try:
            while True:
                await asyncio.sleep(BUSY_PAUSE_S)
                if self._put(slot, message):
                    return
        except asyncio.CancelledError:
            if slot.outcome is None:
                self._slots.pop()  # nothing was done with it
            raise

    def _put(self, slot: Slot, message: Message) -> bool:
        try:
            self._registry.put(slot.loan_id, message, waits=True)
        except Overloaded:
            return False
        except StoreError as error:
            slot.set_exception(error)
        return True

    def look_at(self, slot: Slot) -> None:
        """There is news of a payment."""
        if slot is self._slots[0]:
            self._ready.set()

    # Out -----------------------------------------------------------------------------------------

    async def results(self) -> AsyncIterator[list[bytes]]:
        """Yield the results as JSON, some at a time, until all that was put is shown."""
        assert self._feeding is not None
        while True:
            if shown := self._show():
                yield shown
                await asyncio.sleep(0)
            elif self._feeding.done() and not self._slots:
                return
            else:
                await self._next()

    async def _next(self) -> None:
        self._ready.clear()
        try:
            async with asyncio.timeout(self._stall_s if self._slots else None):
                await self._ready.wait()
        except TimeoutError:
            late = Late(f"no outcome within {self._stall_s:g} s")
            self.stop(late)
            for slot in self._slots:
                if slot.outcome is None:
                    slot.outcome = late

    def _show(self) -> list[bytes]:
        slots = self._slots
        shown: list[bytes] = []
        while slots and len(shown) < CHUNK:
            slot = slots[0]
            outcome = slot.outcome
            if outcome is None:
                break
            slots.popleft()
            shown.append(_encode(self._result(slot, outcome)))
        if shown:
            self._roomy.set()
        return shown

    def _result(self, slot: Slot, outcome: Answer | Exception) -> PaymentResult:
        if isinstance(outcome, StoreError | Late):  # of all that waited at once: it is logged once
            if self._unknown is None:
                self._unknown = self._problem(outcome)
            return refused(slot.transaction_id, self._unknown)
        reply = reply_or_problem(slot.loan_id, outcome, self._route, self._request_id)
        if isinstance(reply, Problem):
            return refused(slot.transaction_id, reply)
        assert isinstance(reply.body, Receipt)
        return PaymentResult(reply.status, slot.transaction_id, receipt=reply.body)

    def _problem(self, error: Exception) -> Problem:
        return problem_of(error, self._route, self._request_id)


def refused(transaction_id: str | None, problem: Problem) -> PaymentResult:
    """The result of a payment that did not count."""
    document = problem_document(problem.slug, problem.detail, problem.extras)
    return PaymentResult(problem.status, transaction_id, problem=ProblemShown(**document))
