"""A server that answers what a test wants it to, where the real service and what stands before it can't be
made to: garbage, a proxy's page, silence.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from aiohttp import web

from ledgerd.client import Client, Payment

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

RECEIPT = {
    "payment_id": "p",
    "transaction_id": "t",
    "loan_id": "l",
    "status": "applied",
    "paid_on": "2026-01-31",
    "recorded_at": "2026-11-23T03:11:49.703Z",
    "amount": "207.00",
    "interest": "57.00",
    "principal": "150.00",
    "allocations": [{"bill": 1, "due_date": "2026-02-15", "interest": "57.00", "principal": "150.00"}],
    "outstanding": {"principal": "4850.00", "interest": "0.00", "total": "4850.00"},
    "loan_status": "active",
    "next_due": None,
    "replayed": False,
    "of a later version": 1,
}


PAYMENTS = [Payment("l", 1_00 + number, f"t-{number}") for number in range(3)]
IMPATIENT: dict[str, Any] = {
    "retry_for_s": 5.0,
    "first_pause_s": 0.001,
    "pause_max_s": 0.01,
    "random": Random(1),
}


def receipt(transaction_id: str) -> dict[str, Any]:
    return {**RECEIPT, "transaction_id": transaction_id}


def paid(number: int) -> dict[str, Any]:
    """The result of one of PAYMENTS."""
    return {"status": 201, "transaction_id": f"t-{number}", "receipt": receipt(f"t-{number}")}


def refused(number: int, status: int, slug: str) -> dict[str, Any]:
    told = {"type": f"/problems/{slug}", "title": "T", "status": status, "detail": "D"}
    return {"status": status, "transaction_id": f"t-{number}", "problem": told}


def unknown(number: int) -> dict[str, Any]:
    return refused(number, 500, "outcome-unknown")


class Stub:
    """Gives the next of `answers` to each call; to whoever asks for a token one, after those of `tokens`."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.tokens: list[Answer] = []
        self.asked: list[Any] = []  # the bodies of calls
        self.calls: Counter[str] = Counter()
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def serving(cls) -> AsyncIterator[Stub]:
        stub = cls()
        app = web.Application()
        app.router.add_post("/api/token/", stub._token)
        app.router.add_route("*", "/{path:.*}", stub._call)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        stub.url = f"http://127.0.0.1:{site.port}"
        try:
            yield stub
        finally:
            await runner.cleanup()
        assert stub.answers == stub.tokens == [], "not all was asked for"

    def client(self, **options: Any) -> Client:
        """A client that tries again within a moment."""
        return Client(self.url, "a", "b", **{**IMPATIENT, **options})

    async def _token(self, request: web.Request) -> web.StreamResponse:
        self.calls["token"] += 1
        if self.tokens:
            return await self.tokens.pop(0)(request)
        return web.json_response({"access_token": f"token-{self.calls['token']}", "expires_in": 900})

    async def _call(self, request: web.Request) -> web.StreamResponse:
        self.calls["call"] += 1
        assert request.headers["Authorization"].startswith("Bearer token-")
        if request.content_type == "application/json":
            self.asked.append(json.loads(await request.read() or b"null"))
        return await self.answers.pop(0)(request)


def says(status: int, body: Any, content_type: str = "application/json", **headers: str) -> Answer:
    """An answer with this body: bytes as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=content, content_type=content_type, headers=named)

    return answer


def problem(status: int, slug: str, **more: Any) -> Answer:
    body = {"type": f"/problems/{slug}", "title": slug, "status": status, "detail": "because", **more}
    return says(status, body, "application/problem+json", X_Request_ID="r-1")


def page(status: int) -> Answer:
    """What a proxy says."""
    return says(status, b"<html><h1>Bad\nGateway</h1>" + b"x" * 5000, "text/html")


async def hang_up(request: web.Request) -> web.StreamResponse:
    """The connection breaks before an answer comes."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def say_nothing(request: web.Request) -> web.StreamResponse:
    """No answer comes for as long as the caller waits."""
    await asyncio.Event().wait()
    raise AssertionError
