"""A service that runs elsewhere, as a load's subject: reached by its URL, with tokens of one client."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench import client
from bench.service import TOKENS, Audit

SAMPLE = 200
CONNECTIONS = 4


class Remote:
    """The service at `url`. `loans` are ids of loans that its client may pay."""

    front_pid = None

    def __init__(self, url: str, client_id: str, client_secret: str, loans: Sequence[str]) -> None:
        address = urllib.parse.urlsplit(url)
        if address.scheme != "http" or address.hostname is None:
            raise ValueError(f"{url}: write http://host:port")
        self.url = url.rstrip("/")
        self.host = socket.gethostbyname(address.hostname)
        self.port = address.port or 80
        self.loans = list(loans)
        self._form = urllib.parse.urlencode(
            {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
        ).encode()
        self._tokens: list[str] = []
        self._audits = 0

    @property
    def statement_loans(self) -> list[tuple[int, list[str]]]:
        """Nobody knows here how many payments they have."""
        return [(0, self.loans[:10])]

    def tokens(self, count: int = TOKENS) -> list[str]:
        """Return access tokens, asked for one by one at first."""
        while len(self._tokens) < count:
            with urllib.request.urlopen(f"{self.url}/api/token/", self._form, timeout=30) as answer:
                self._tokens.append(json.load(answer)["access_token"])
        return self._tokens[:count]

    @contextmanager
    def audit(self, scenario: str) -> Iterator[Audit]:
        """After the block, make some payments and read each that was acknowledged back, besides what the
        block counts itself.
        """
        audit = Audit(scenario)
        yield audit
        self._audits += 1
        name = f"sample-{scenario}-{self.tokens(1)[0][-8:]}-{self._audits}"
        audit.acknowledged, audit.in_ledger = asyncio.run(self._read_back(name))

    async def _read_back(self, name: str) -> tuple[int, int]:
        token = self.tokens(1)[0]
        acknowledged: list[str] = []

        def note(request: bytes, status: int, _body: bytes) -> None:
            if status == 201:
                acknowledged.append(json.loads(request.partition(b"\r\n\r\n")[2])["transaction_id"])

        made = client.payments(self.loans, [token], name)
        some = [next(made) for _ in range(SAMPLE)]
        await client.Load(some, note).run(self.port, CONNECTIONS, self.host)
        requests = [client.get(f"/api/payments/{each}/", token) for each in acknowledged]
        answers = await client.Load(requests).run(self.port, CONNECTIONS, self.host)
        return len(acknowledged), answers.statuses[200]
