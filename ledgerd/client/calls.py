"""Calls over HTTP, each tried until it has a final answer: attempts, tokens, and what an answer means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL  # aiohttp's type of an address

from ledgerd.client.backoff import Backoff, Patience
from ledgerd.client.errors import Failed, OutcomeUnknown, Problem, Unavailable, failed, read_problem
from ledgerd.client.models import reader
from ledgerd.client.tokens import Grant, Tokens

T = TypeVar("T")

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
REQUEST_ID: Final = "X-Request-ID"
CONNECT_TIMEOUT_S: Final = 10.0
# Before these refusals the ledger looked the transaction_id up, so they tell of earlier attempts too.
LOOKED_UP: Final = frozenset(
    {
        "amount-exceeds-payoff",
        "loan-closed",
        "loan-not-found",
        "no-such-bill",
        "past-due-unpaid",
        "transaction-id-conflict",
    }
)


class Attempts:
    """The attempts at one thing, `what`. One that moves money is given up as OutcomeUnknown."""

    def __init__(self, patience: Patience, what: str, *, moves_money: bool) -> None:
        self._gives_up: type[Unavailable] = OutcomeUnknown if moves_money else Unavailable
        self._backoff = Backoff(patience, what, self._gives_up)
        self._what = what
        self._moves_money = moves_money
        self._renewed = False
        self._unsure = False  # an earlier attempt may have been done

    def progressed(self) -> None:
        """Begin anew: something of it is done."""
        self._backoff.progressed()
        self._renewed = False

    async def again(self, error: Problem | Failed) -> None:
        """Return when it is time for the next attempt; raise what is final."""
        if isinstance(error, Failed):
            self._renewed = False
            self._unsure = self._unsure or error.unsure
            await self._backoff.pause(error)
        elif error.slug == "unauthorized" and not self._renewed:
            self._renewed = True  # that token is forgotten, the next one is new
        elif self._unsure and self._moves_money and error.slug not in LOOKED_UP:
            raise self._gives_up(f"{self._what}: no word of an earlier attempt; the last: {error}") from error
        else:
            raise error


class Calls:
    """The service at `url`, spoken to as one client. An attempt may take `timeout_s`."""

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: str,
        session: aiohttp.ClientSession,
        timeout_s: float,
        patience: Patience,
    ) -> None:
        self.timeout_s = timeout_s
        self.patience = patience
        self.tokens = Tokens(self._grant)
        self._url = str(URL(url)).rstrip("/")
        self._session = session
        self._credentials = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": client_secret,
        }

    async def ask(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], T],
        body: bytes | None = None,
        *,
        moves_money: bool = False,
        what: str | None = None,
    ) -> T:
        """Return what a call answers, as `read` reads it."""
        attempts = Attempts(self.patience, what or f"{method} {path}", moves_money=moves_money)
        while True:
            try:
                return (await self.once(method, path, read, body))[0]
            except (Problem, Failed) as error:
                await attempts.again(error)

    async def once(
        self, method: str, path: str, read: Callable[[bytes], T], body: bytes | None = None
    ) -> tuple[T, str | None]:
        """Make one attempt, and return what it answers and its request id; else raise Problem or Failed."""
        with failures():
            async with asyncio.timeout(self.timeout_s), self.open(method, path, body) as response:
                return read(await response.read()), response.headers.get(REQUEST_ID)
        raise AssertionError  # failures() never swallows

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        body: bytes | AsyncIterable[bytes] | None = None,
        content_type: str = JSON,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make one attempt, with the token, and hold its answer; Problem or Failed if it is not 2xx."""
        token = await self.tokens.current()
        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = content_type
        async with self._request(method, path, body, headers) as response:
            if response.status == 401:
                self.tokens.forget(token)
            await _check(response)
            yield response

    def _request(
        self, method: str, path: str, body: bytes | AsyncIterable[bytes] | None, headers: dict[str, str]
    ) -> aiohttp.client._RequestContextManager:
        return self._session.request(
            method,
            URL(f"{self._url}{path}", encoded=True),
            data=body,
            headers=headers,
            allow_redirects=False,  # where they lead nobody knows
            raise_for_status=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        )

    async def _grant(self) -> Grant:
        try:
            with failures():
                body, headers = msgspec.json.encode(self._credentials), {"Content-Type": JSON}
                async with (
                    asyncio.timeout(self.timeout_s),
                    self._request("POST", "/api/token/", body, headers) as response,
                ):
                    await _check(response)
                    return _read_grant(await response.read())
        except Failed as error:  # whatever became of it, no payment was sent
            raise Failed(f"no token: {error}", unsure=False, retry_after_s=error.retry_after_s) from error


@contextmanager
def failures() -> Iterator[None]:
    """Raise Failed for whatever may befall an attempt within the block."""
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise Failed(_text(error), unsure=False) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Failed(_text(error), unsure=True) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failed(f"an answer that can't be read: {_text(error)}", unsure=True) from error


def part(text: str) -> str:
    """Quote an id as a part of a path, dots too: `..` would lead elsewhere."""
    return quote(text, safe="").replace(".", "%2E")


_read_grant = reader(Grant)


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raise unless it is 2xx."""
    if not 200 <= response.status < 300:
        problem = read_problem(
            response.status, response.content_type, await response.read(), response.headers.get(REQUEST_ID)
        )
        raise failed(problem, response.headers.get("Retry-After")) or problem


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
