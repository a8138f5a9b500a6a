"""The service from the outside: the real application behind the real listener, and everybody who calls it.

A World is one service in a sandbox with a time that stands still. Each answer that comes through `World.call`
is checked against what the route table promises of its route; when the World ends, nothing may have been
logged as an error, and no secret that was sent or received may stand in the log.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import random
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import jwt
import msgspec
import structlog
from aiohttp import TCPConnector
from aiohttp.test_utils import TestClient, TestServer
from multidict import CIMultiDictProxy
from yarl import URL

from ledgerd.app import Chance, Service, open_service
from ledgerd.clock import SandboxClock
from ledgerd.config import Auth, Clock, Config, Identity, Lending, Storage
from ledgerd.http.edge import EdgeLimits
from ledgerd.http.listener import Listener
from ledgerd.http.problems import PROBLEMS
from ledgerd.http.route import Route
from ledgerd.http.routes import ROUTES
from ledgerd.observe import AccessLog, configure_logging

NOW_S = 1_800_000_000
START = date(2026, 1, 1)
PASSWORD = "correct horse"  # of whoever is not about passwords
POLLS_MAX = 10_000
CONNECTIONS = 250

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
AUTHORISATION = {"unauthorized", "insufficient-scope"}
# What the edge, the router and a stopping service may say of any route.
ANYWHERE = {"not-found", "method-not-allowed", "draining", "overloaded", "malformed"}
# Spelled out: the code's own table may not be what is looked at.
ALWAYS = {"Server": "ledgerd", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
# X-Request-ID and Date differ between any two answers.
OWN_HEADERS = {"x-request-id", "date"}

# By the route's name: a body that each call takes.
GOOD_BODIES: dict[str, Any] = {
    "registerUser": {
        "name": "Asha",
        "email": "asha@example.com",
        "aadhar_id": "asha",
        "annual_income": "1",
        "password": "correct horse",
    },
    "login": {"aadhar_id": "nobody", "password": "correct horse"},
    "token": {"grant_type": "refresh_token", "refresh_token": "none"},
    "applyLoan": {"amount": "1.00", "interest_rate": "1", "tenure": 1},
    "makePayment": {"loan_id": "0" * 16, "amount": "1.00", "transaction_id": "x"},
    "makePayments": [{"loan_id": "0" * 16, "amount": "1.00", "transaction_id": "x"}],
    "startBillingRun": {},
    "advanceClock": {"days": 1},
}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def slug(self) -> str:
        """The problem's name; "" when the answer is none."""
        return self.json["type"].removeprefix("/problems/") if self.is_problem and self.body else ""

    @property
    def is_problem(self) -> bool:
        return self.headers.get("Content-Type") == "application/problem+json"

    @property
    def paths(self) -> list[str]:
        """Which fields the problem names."""
        return [error["path"] for error in self.json["errors"]]

    @property
    def bare(self) -> tuple[int, dict[str, str], bytes]:
        """Everything that a caller could tell two answers apart by."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        return (
            self.status,
            {name: value for name, value in headers.items() if name not in OWN_HEADERS},
            self.body,
        )


@dataclass
class Caller:
    """Somebody with a token: a borrower or a client."""

    id: str
    token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    identity: str = ""
    email: str = ""
    secret: str = field(default="", repr=False)


class Time:
    """Real time, moved by hand; and chance, from a seed."""

    def __init__(self, seed: int = 1) -> None:
        self.now_s = float(NOW_S)
        self._random = random.Random(seed)

    def chance(self) -> Chance:
        return Chance(lambda: self.now_s, self._random.randbytes, self._random.getrandbits)


class Served(TestServer):
    """Our own listener under aiohttp's test client, so that the edge of a connection is the real one."""

    def __init__(self, service: Service, access: AccessLog) -> None:
        super().__init__(service.application(access))
        limits = EdgeLimits(connections_per_address=4 * CONNECTIONS)
        self.listener = Listener(limits, service.choose_request_id)

    async def start_server(self, *_: Any, **__: Any) -> None:
        if self._root is None:
            self.port = await self.listener.start(self.app, "127.0.0.1", 0)
            self._root = URL(f"http://127.0.0.1:{self.port}")

    async def close(self) -> None:
        if self._root is not None:
            await self.listener.close(5)
            self._root = None


class World:
    """One service, its log, and those who call it."""

    def __init__(
        self, service: Service, client: TestClient, access: AccessLog, log: io.StringIO, time: Time
    ) -> None:
        self.service = service
        self.client = client
        self.access = access
        self.log = log
        self.time = time
        self.secrets: set[str] = {PASSWORD}
        self.errors_allowed = False  # in a test that breaks the service on purpose
        self.people = 0
        self.payments = 0
        self.ops: Caller
        self.payer: Caller

    @property
    def today(self) -> date:
        return date.fromordinal(self.service.services.clock.today())

    # Calls ---------------------------------------------------------------------------------------

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        who: Caller | str | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """Send a request and check its answer. A body of bytes goes as it is, anything else as JSON; a header
        of None is left out.
        """
        sent: dict[str, str | None] = {}
        if who is not None:
            sent["Authorization"] = f"Bearer {who if isinstance(who, str) else who.token}"
        if body is not None:
            sent["Content-Type"] = "application/json"
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent.update(headers or {})
        async with self.client.request(
            method,
            path,
            data=body,
            headers={name: value for name, value in sent.items() if value is not None},
            skip_auto_headers=("Content-Type", "Accept-Encoding"),
            allow_redirects=False,
        ) as response:
            answer = Answer(response.status, response.headers, await response.read())
        self._check(method, path.partition("?")[0], answer)
        return answer

    async def get(self, path: str, who: Caller | str | None = None, **headers: str) -> Answer:
        return await self.call("GET", path, None, who, headers)

    async def post(
        self, path: str, body: Any = None, who: Caller | str | None = None, **headers: str | None
    ) -> Answer:
        return await self.call("POST", path, body, who, headers)

    def _check(self, method: str, path: str, answer: Answer) -> None:
        told = f"{method} {path}: {answer.status} {answer.body[:300]!r}"
        assert answer.status != 500 or self.errors_allowed, told
        assert REQUEST_ID.fullmatch(answer.headers["X-Request-ID"]), told
        assert [answer.headers.getall(name) for name in ALWAYS] == [[value] for value in ALWAYS.values()], (
            told
        )
        route = route_of(method, path)
        if answer.status >= 400:
            assert answer.is_problem, told
            if method != "HEAD":
                check_problem(answer)
            if answer.status in {429, 503} or answer.slug == "score-pending":
                assert int(answer.headers["Retry-After"]) >= 1, told
            if answer.status == 401:
                assert answer.headers["WWW-Authenticate"].startswith("Bearer"), told
            if route is not None and method != "HEAD":
                promised = ANYWHERE | set(route.problems) | (AUTHORISATION if route.scopes else set())
                assert answer.slug in promised, f"{told}: not among the route's problems"
        elif route is not None and method != "HEAD":
            assert answer.status in route.answers, told
            check_shape(route, answer)

    # Who calls -----------------------------------------------------------------------------------

    async def register(self, **fields: Any) -> Answer:
        """Register somebody new, with these fields in the place of the usual ones."""
        self.people += 1
        body = {
            "name": f"Borrower {self.people}",
            "email": f"b{self.people}@example.com",
            "aadhar_id": f"identity-{self.people:04}",
            "annual_income": "600000.00",
            "password": PASSWORD,
        }
        body.update(fields)
        return await self.post("/api/register-user/", body)

    async def borrower(self, **fields: Any) -> Caller:
        """Somebody who is registered, scored and logged in."""
        identity = fields.get("aadhar_id", f"identity-{self.people + 1:04}")
        password = fields.get("password", PASSWORD)
        registered = await self.register(**fields)
        assert registered.status == 201, registered
        body = registered.json
        caller = await self.log_in(identity, password)
        caller.id, caller.identity, caller.email = body["user_id"], identity, body["email"]
        await self.scored(caller)
        return caller

    async def log_in(self, identity: str, password: str = PASSWORD) -> Caller:
        answer = await self.post("/api/login/", {"aadhar_id": identity, "password": password})
        assert answer.status == 200, answer
        return self.keep(Caller("", answer.json["access_token"], answer.json["refresh_token"], identity))

    async def scored(self, who: Caller) -> Any:
        """Wait until the score is known, and return what /api/me/ says."""
        for _ in range(POLLS_MAX):
            me = (await self.get("/api/me/", who)).json
            if me["score_status"] == "scored":
                return me
        raise AssertionError("nobody scores")

    async def new_client(self, *scopes: str) -> Caller:
        """A client with a token."""
        made = await self.service.services.accounts.create_client("till", scopes)
        caller = Caller(made.client_id, "", secret=made.client_secret)
        return await self.log_client_in(caller)

    async def log_client_in(self, client: Caller) -> Caller:
        """The same client with another token."""
        body = {"grant_type": "client_credentials", "client_id": client.id, "client_secret": client.secret}
        answer = await self.post("/api/token/", body)
        assert answer.status == 200, answer
        return self.keep(Caller(client.id, answer.json["access_token"], secret=client.secret))

    def keep(self, caller: Caller) -> Caller:
        """Remember what of the caller may stand in no log."""
        self.secrets.update(filter(None, (caller.token, caller.refresh_token, caller.secret)))
        return caller

    # What they do --------------------------------------------------------------------------------

    async def lend(
        self, who: Caller, amount: str = "5000.00", interest_rate: str = "14", tenure: int = 12, **more: Any
    ) -> Any:
        """Apply for a loan, and return it as it was lent."""
        body = {"amount": amount, "interest_rate": interest_rate, "tenure": tenure, **more}
        answer = await self.post("/api/apply-loan/", body, who)
        assert answer.status == 201, answer
        return answer.json

    async def pay(
        self,
        who: Caller,
        loan_id: str,
        amount: Any,
        transaction_id: str | None = None,
        for_bill: int | None = None,
    ) -> Answer:
        """Make a payment, with a transaction_id of its own when none is named."""
        self.payments += 1
        body = {
            "loan_id": loan_id,
            "amount": amount,
            "transaction_id": transaction_id or f"t-{self.payments}",
        }
        if for_bill is not None:
            body["for_bill"] = for_bill
        return await self.post("/api/make-payment/", body, who)

    async def statement(self, who: Caller, loan_id: str, more: str = "") -> Any:
        answer = await self.get(f"/api/get-statement/?loan_id={loan_id}{more}", who)
        assert answer.status == 200, answer
        return answer.json

    async def loan(self, who: Caller, loan_id: str) -> Any:
        answer = await self.get(f"/api/loans/{loan_id}/", who)
        assert answer.status == 200, answer
        return answer.json

    async def advance(self, days: int) -> Any:
        """Move the date, each day running its jobs."""
        answer = await self.post("/api/sandbox/advance-clock/", {"days": days}, self.ops)
        assert answer.status == 200, answer
        return answer.json

    def jump(self, days: int) -> None:
        """Move the date with no jobs run, as when nobody woke for days."""
        clock = self.service.services.clock
        assert isinstance(clock, SandboxClock)
        clock.set(clock.today() + days)

    async def metric(self, name: str) -> float:
        """What /metrics says under this name, labels included."""
        text = (await self.get("/metrics")).body.decode()
        [value] = [line.split()[-1] for line in text.splitlines() if line.rpartition(" ")[0] == name]
        return float(value)

    async def head(self) -> float:
        """How many events the journal has."""
        return await self.metric("ledgerd_journal_head_seq")

    # The end -------------------------------------------------------------------------------------

    def check_log(self) -> None:
        """Nothing went wrong unnoticed, and nothing secret was written."""
        text = self.log.getvalue()
        for line in text.splitlines():
            assert self.errors_allowed or json.loads(line)["level"] not in {"error", "critical"}, line
        for secret in self.secrets:
            assert secret not in text, f"a secret stands in the log: {secret[:12]}.."


# Tokens of other hands --------------------------------------------------------------------------


def forged(world: World, claims: dict[str, Any], header: dict[str, Any], key: object = None) -> str:
    """A token with these claims and header, signed by `key` (ours, when None is given) with EdDSA."""
    keyring = world.service.services.tokens._keyring  # the real one: what differs is the rest
    whole = {"typ": "at+jwt", "kid": keyring.signing.kid, **header}
    return jwt.PyJWS().encode(json.dumps(claims).encode(), key or keyring.signing.private, "EdDSA", whole)


def unsigned(header: dict[str, Any], claims: dict[str, Any], sign=lambda _: b"") -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)
    ]
    text = ".".join(parts)
    return f"{text}.{base64.urlsafe_b64encode(sign(text.encode())).rstrip(b'=').decode()}"


# The table ---------------------------------------------------------------------------------------


def day(number: int) -> str:
    """The date so many days after START."""
    return (START + timedelta(number)).isoformat()


def route_of(method: str, path: str) -> Route | None:
    """The route that serves this, by the table."""
    for route in ROUTES:
        pattern = re.sub(r"\{\w+\}", "[^/]+", route.path.replace(".", r"\.").rstrip("/"))
        if route.method == method.replace("HEAD", "GET") and re.fullmatch(f"{pattern}/?", path):
            return route
    return None


def check_problem(answer: Answer) -> None:
    """A problem is whole, and as the table of problems has it."""
    body = answer.json
    kind = PROBLEMS[answer.slug]
    assert body["type"] == f"/problems/{answer.slug}"
    assert (body["status"], body["title"]) == (answer.status, kind.title) == (kind.status, kind.title)
    assert body["detail"]
    assert set(body) - {"type", "title", "status", "detail"} <= {
        "errors",
        "reasons",
        "payoff",
        "unpaid_bills",
    }
    assert ("errors" in body) == (answer.slug == "invalid-fields")
    for error in body.get("errors", ()):
        assert set(error) == {"path", "message"}
        assert error["message"]


def check_shape(route: Route, answer: Answer) -> None:
    """An answer has the fields of its Struct, exactly, in order."""
    declared = route.answers[answer.status]
    if declared is None:
        assert answer.body == b""
    elif isinstance(declared, str):
        assert answer.headers["Content-Type"].startswith(declared)
    else:
        kind: Any = list[declared] if route.batch else declared
        bodies = [answer.body]
        if route.batch and answer.headers["Content-Type"] == "application/x-ndjson":
            kind, bodies = declared, answer.body.splitlines()
        else:
            assert answer.headers["Content-Type"] == "application/json"
        for body in bodies:
            assert msgspec.json.encode(msgspec.json.decode(body, type=kind)) == body


def config_in(folder: Path, **sections: Any) -> Config:
    """A sandbox in memory, where any text is an identity and everybody is scored well enough."""
    usual: dict[str, Any] = {
        "storage": Storage(url="sqlite:///:memory:"),
        "auth": Auth(keys_dir=str(folder / "keys")),
        "clock": Clock(sandbox_start=START.isoformat()),
        "identity": Identity(kind="opaque"),
        "lending": Lending(min_credit_score=300),
    }
    return Config(**{**usual, **sections})


def on_disk(folder: Path) -> Storage:
    """A database of real files, behind a store process."""
    return Storage(url=f"sqlite:///{folder / 'ledger.db'}")


@asynccontextmanager
async def opened(aiohttp_client: Any, config: Config, time: Time | None = None) -> AsyncIterator[World]:
    """Open the service, serve it, and close both; then look at what was logged."""
    time = time or Time()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    access = configure_logging("json", "info", stream)
    try:
        service = await open_service(config, time.chance())
        try:
            connector = TCPConnector(limit=CONNECTIONS)
            client = await aiohttp_client(Served(service, access), connector=connector)
            world = World(service, client, access, stream, time)
            world.ops = await world.new_client("ops")
            world.payer = await world.new_client("payments:write")
            yield world
            await client.close()
            access.flush()
        finally:
            await service.close()
        world.check_log()
    finally:
        structlog.reset_defaults()
        root.handlers[:], level = before
        root.setLevel(level)
