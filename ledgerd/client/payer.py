"""The client: one login, single payments, many of them, and reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from random import Random, SystemRandom
from types import TracebackType
from typing import Final, Self

import aiohttp

from ledgerd.client.backoff import Patience
from ledgerd.client.batches import pay_batch
from ledgerd.client.calls import Calls, part
from ledgerd.client.models import Loan, Payment, Receipt, StatementPage, encode_payment, reader
from ledgerd.client.results import Result, chunks
from ledgerd.client.stream import Stream

_read_receipt: Final = reader(Receipt)
_read_loan: Final = reader(Loan)
_read_page: Final = reader(StatementPage)


class Client:
    """A client of the service at `url`, such as "http://localhost:8080"; `ledgerd client create` makes its id
    and secret. To be used as an async context manager, by any number of tasks at once.

    `session` is used when one is given, and left open. An attempt may take `timeout_s` seconds: more than the
    service's own `request_timeout_s`. What has no final answer is tried again, with pauses that double from
    `first_pause_s` to `pause_max_s` of which `random` takes a half to the whole, and that long after
    Retry-After; no attempt begins later than `retry_for_s` seconds after the first failure.

    Every call raises Problem for a final refusal, at once; that is also a wrong id or secret, and a missing
    scope. Reads raise Unavailable when no answer came in that time, payments OutcomeUnknown.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: str,
        *,
        session: aiohttp.ClientSession | None = None,
        timeout_s: float = 35.0,
        retry_for_s: float = 120.0,
        first_pause_s: float = 0.1,
        pause_max_s: float = 10.0,
        random: Random | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"the service's address begins with http:// or https://: {url!r}")
        self._own_session = session is None
        self._session = session
        self._calls: Calls | None = None
        self._login = url, client_id, client_secret
        self._timeout_s = timeout_s
        self._patience = Patience(retry_for_s, first_pause_s, pause_max_s, random or SystemRandom())

    async def __aenter__(self) -> Self:
        """Be ready; nothing is sent yet."""
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        self._calls = Calls(*self._login, self._session, self._timeout_s, self._patience)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections, unless they are another's."""
        await self._open.tokens.close()
        self._calls = None
        if self._own_session and self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def _open(self) -> Calls:
        if self._calls is None:
            raise RuntimeError("the client is not open: async with Client(..) as client")
        return self._calls

    # Payments ------------------------------------------------------------------------------------

    async def pay(self, payment: Payment) -> Receipt:
        """Make a payment and return its receipt, `replayed` when it had counted before.

        It counts once, however many attempts it takes: each bears the same transaction_id. Raises
        OutcomeUnknown when no attempt had a final answer: call it again with the same payment.
        """
        return await self._open.ask(
            "POST",
            "/api/make-payment/",
            _read_receipt,
            encode_payment(payment),
            moves_money=True,
            what=f"the payment {payment.transaction_id}",
        )

    async def pay_many(
        self, payments: Iterable[Payment] | AsyncIterable[Payment], batch: int = 1_000
    ) -> AsyncGenerator[Result, None]:
        """Make many payments, `batch` in a call (at most the service's `batch_items`), and yield their
        results in order. Those of a batch that had no final answer are tried again.

        A refusal is a result like any other. Raises OutcomeUnknown when the service doesn't answer, and
        Problem when it refuses whole calls: whatever has no result then is to be sent again.
        """
        if batch < 1:
            raise ValueError(f"a batch is one payment or more: {batch}")
        calls = self._open
        async for some in chunks(payments, batch):
            for result in await pay_batch(calls, some):
                yield result

    async def stream(
        self, payments: Iterable[Payment] | AsyncIterable[Payment]
    ) -> AsyncGenerator[Result, None]:
        """Make any number of payments over one connection, both directions at once, and yield their results
        in order. Some 4,000 are under way at most, so that memory is bounded, and whoever doesn't take the
        results has no more taken from the source.

        When the connection breaks, another is made, and what has no result is sent again. Raises as pay_many
        does, and what the source raises, after the results of what came before.
        """
        async with aclosing(Stream(self._open, payments).results()) as results:
            async for result in results:
                yield result

    # Reads ---------------------------------------------------------------------------------------

    async def payment(self, transaction_id: str) -> Receipt:
        """Return this client's receipt; Problem `payment-not-found` if none counted."""
        return await self._open.ask("GET", f"/api/payments/{part(transaction_id)}/", _read_receipt)

    async def loan(self, loan_id: str) -> Loan:
        """Return a loan as it stands today. Needs the scope `ops`."""
        return await self._open.ask("GET", f"/api/loans/{part(loan_id)}/", _read_loan)

    async def statement(self, loan_id: str, limit: int = 100) -> AsyncGenerator[StatementPage, None]:
        """Yield the pages of a loan's statement, with `limit` payments (1 to 500) each, the newest first.
        Needs the scope `ops`.
        """
        calls = self._open
        path = f"/api/get-statement/?limit={limit}&loan_id={part(loan_id)}"
        cursor = ""
        while True:
            page = await calls.ask("GET", f"{path}{cursor}", _read_page)
            yield page
            if page.next_cursor is None:
                return
            cursor = f"&cursor={part(page.next_cursor)}"
