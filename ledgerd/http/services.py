"""What handlers may reach: put together by app.py, handed to every handler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ledgerd.actors.registry import Registry
from ledgerd.clock import Clock
from ledgerd.config import Config
from ledgerd.domain.eligibility import LendingRules
from ledgerd.http.accounts import Accounts
from ledgerd.http.addresses import TrustedProxies
from ledgerd.http.console.sessions import Sessions
from ledgerd.http.tokens import Tokens
from ledgerd.ids import Ids
from ledgerd.metrics import Metrics
from ledgerd.storage.ports import Store
from ledgerd.storage.vault import Vault


class BillingRuns(Protocol):
    """The nightly work, as http sees it. A run is a row of billing_runs: id, date, status, due, billed,
    failed, the ids of those that failed, start, end.
    """

    def latest(self) -> list[Any] | None:
        """Return the run that goes on, or the last one since the start."""
        ...

    async def start(self, through: int) -> tuple[list[Any], bool]:
        """Start a run (or join the one that goes on) and wait for a moment: its row, and whether it has
        ended.
        """
        ...

    async def advance(self, *, days: int = 0, to: int = 0) -> list[list[Any]]:
        """Move the sandbox's date by `days`, or up to the day `to`, billing each day before the next, and
        scoring at the end; return the rows of the runs.
        """
        ...


class Scorer(Protocol):
    """The scoring of borrowers, as http sees it."""

    def wake(self) -> None:
        """Somebody new is to be scored."""
        ...


@dataclass(slots=True)
class Services:
    """See the module. `draining` turns new work away; `ready` is what /readyz says."""

    config: Config
    lending: LendingRules
    store: Store
    registry: Registry
    clock: Clock
    ids: Ids
    accounts: Accounts
    tokens: Tokens
    vault: Vault
    billing: BillingRuns
    scorer: Scorer
    metrics: Metrics
    trusted_proxies: TrustedProxies
    sessions: Sessions
    ready: bool = False
    draining: bool = False
    at_drain: set[Callable[[], object]] = field(default_factory=set)

    def drain(self) -> None:
        """Turn new work away, and tell who waits to hear it: a stream would never end by itself."""
        self.draining = True
        for told in tuple(self.at_drain):
            told()
