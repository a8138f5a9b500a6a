"""A ledgerd for the tests of other programs: real HTTP on a free port, a ledger in memory, a date that moves
when it is told to.

`sandbox()` runs one in a thread of its own, so that any test can use it, with asyncio or without. For pytest,
`pytest_plugins = ["ledgerd.testing.plugin"]` gives it as the fixture `ledgerd_sandbox`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import tempfile
import threading
import urllib.request
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError

from ledgerd.app import Service, build
from ledgerd.clock import SandboxClock
from ledgerd.config import Auth, Config, Identity, Lending, Storage
from ledgerd.http.clients import Refusal
from ledgerd.server import listener_of
from ledgerd.storage.files import open_memory

STARTS_ON = date(2026, 1, 1)
PASSWORD = "correct horse battery"  # noqa: S105 - of people who are made up
CONNECTIONS = 1_000
GUARD_S = 60.0

_T = TypeVar("_T")


class Sandbox:
    """A service that runs, and those who call it."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop, url: str) -> None:
        self.service = service
        self.url = url  # such as http://127.0.0.1:40123, without a slash behind it
        self._loop = loop
        self._people = 0

    @property
    def today(self) -> date:
        """The business date."""
        return date.fromordinal(self.service.services.clock.today())

    def call(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """Call the API: (status, what came as JSON). Blocks; not for the sandbox's own loop."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310 - ours
        try:
            with urllib.request.urlopen(request, timeout=GUARD_S) as answer:  # noqa: S310
                status, text = answer.status, answer.read()
        except HTTPError as error:
            with error:
                status, text = error.code, error.read()
        return status, json.loads(text) if text else None

    def client(self, *scopes: str) -> tuple[str, str]:
        """Make a client, with `payments:write` or `ops` or both: (client_id, client_secret)."""
        made = self._run(self.service.services.accounts.create_client("a test", scopes))
        if isinstance(made, Refusal):
            raise ValueError(made.detail)  # noqa: TRY004 - the scopes are of the right type
        return made.client_id, made.client_secret

    def token(self, *scopes: str) -> str:
        """Return an access token of a new client."""
        client_id, client_secret = self.client(*scopes)
        credentials = {"client_id": client_id, "client_secret": client_secret}
        granted = self._expect(
            200, "POST", "/api/token/", {"grant_type": "client_credentials", **credentials}
        )
        return str(granted["access_token"])

    def borrower(self, **fields: str) -> str:
        """Register somebody with these fields in the place of made-up ones; return their access token."""
        self._people += 1
        person = {
            "name": f"Borrower {self._people}",
            "email": f"borrower-{self._people}@example.in",
            "aadhar_id": f"identity-{self._people}",
            "annual_income": "600000.00",
            "password": PASSWORD,
            **fields,
        }
        self._expect(201, "POST", "/api/register-user/", person)
        login = {"email": person["email"], "password": person["password"]}
        token = str(self._expect(200, "POST", "/api/login/", login)["access_token"])
        while self._expect(200, "GET", "/api/me/", token=token)["score_status"] == "pending":
            pass
        return token

    def lend(self, borrower: str, amount: str = "5000.00", tenure: int = 12, **terms: str) -> dict[str, Any]:
        """Lend to the borrower with this token; return the loan as the API shows it."""
        body = {"amount": amount, "interest_rate": "14.00", "tenure": tenure, **terms}
        return dict(self._expect(201, "POST", "/api/apply-loan/", body, borrower))

    def advance(self, days: int) -> date:
        """Move the date, each day running its jobs as at night; return the new date."""
        self._expect(200, "POST", "/api/sandbox/advance-clock/", {"days": days}, self.token("ops"))
        return self.today

    def _expect(self, wanted: int, method: str, path: str, body: Any = None, token: str = "") -> Any:
        status, answer = self.call(method, path, body, token)
        if status != wanted:
            raise RuntimeError(f"{method} {path}: {status} {answer}")
        return answer

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(GUARD_S)


def sandbox_config(folder: Path, sections: Mapping[str, Any] | None = None) -> Config:
    """Return a configuration in which any text is an identity and everybody may borrow; its keys lie in
    `folder`. `sections` are those of `Config`, in the place of these.
    """
    usual = {
        "storage": Storage(url="sqlite:///:memory:"),
        "auth": Auth(keys_dir=str(folder / "keys")),
        "identity": Identity(kind="opaque"),
        "lending": Lending(min_credit_score=300),
    }
    return Config(**{**usual, **(sections or {})})


@contextmanager
def sandbox(config: Config | None = None, *, starts_on: date = STARTS_ON) -> Iterator[Sandbox]:
    """Serve a ledger in memory on a free port of loopback, with this business date at first."""
    with tempfile.TemporaryDirectory(prefix="ledgerd-sandbox-") as folder:
        ready: concurrent.futures.Future[Sandbox] = concurrent.futures.Future()
        end = threading.Event()
        settings = config or sandbox_config(Path(folder))
        thread = threading.Thread(
            target=_serve, args=(settings, starts_on, ready, end), name="ledgerd-sandbox"
        )
        thread.start()
        try:
            yield ready.result(GUARD_S)
        finally:
            end.set()
            thread.join()


def _serve(
    config: Config, starts_on: date, ready: concurrent.futures.Future[Sandbox], end: threading.Event
) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        clock = SandboxClock(starts_on.toordinal())
        async with build(config, clock=clock, storage=await open_memory()) as service:
            listener = listener_of(service, CONNECTIONS)
            port = await listener.start(service.application(), "127.0.0.1", 0)
            try:
                ready.set_result(Sandbox(service, loop, f"http://127.0.0.1:{port}"))
                await loop.run_in_executor(None, end.wait)
            finally:
                await listener.close(GUARD_S)

    try:
        asyncio.run(serve())
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)
