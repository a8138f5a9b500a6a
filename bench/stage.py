"""What the scenarios of one run share: sizes, ledgers that are made once, peers, and the checks that come
last.

All scenarios of a kind run one after another on one ledger. After every load the journal is counted against
what was acknowledged; `ledgerd verify`, which reads every event again, then passes over each ledger once, at
the end of the run. Until then no finding counts as checked.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from bench import closedloop
from bench.book import Group, write_book
from bench.remote import Remote
from bench.results import Check, Findings, Load, Measure
from bench.service import (
    NotAResult,
    Sections,
    Service,
    begin_verify,
    end_verify,
    free_port,
    serving,
    write_config,
)

T = TypeVar("T")

DAYS_LENT_AGO = (100, 95)  # of the million, and of those that are billed while others pay
LedgerName = Literal["payments", "million"]
SANDBOX_DAY = "2026-06-01"  # the million's; its loans were lent before


Subject = Service | Remote


class Missing(Exception):
    """A scenario needs something that is not here; the message says what, and how to get it."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How large and how long. The defaults are a whole run's."""

    rounds: int = 3
    seed: int = 20_260_101
    loans: int = 10_000
    earlier_payments: int = 3_000_000
    statements: tuple[tuple[int, int], ...] = ((10, 10), (10, 1_000), (4, 100_000))  # loans, payments each
    warm_s: int = 3
    load_s: int = 6
    short_s: int = 4
    open_s: float = 15.0
    overload_s: float = 30.0
    after_overload_s: float = 15.0
    million: int = 1_000_000  # loans due, and loans in the ledger of the memory scenario
    billed_while_paid: int = 200_000
    resident: int = 100_000
    csv_rows: int = 5_000_000
    csv_people: int = 200_000
    idle_s: float = 8.0
    few_connections: tuple[int, ...] = (1, 8, 16)
    few_loans: tuple[int, ...] = (10, 100)
    offered: tuple[float, ...] = (0.25, 0.50, 0.65, 0.80, 0.90, 1.00)  # of the rate of B1
    peers: tuple[str, ...] = ("bare", "django", "pgbench", "sqlite-raw", "sql-set", "duckdb")


FULL = Sizes()
QUICK = Sizes(
    earlier_payments=50_000,
    statements=((4, 10), (2, 1_000)),
    warm_s=2,
    load_s=2,
    short_s=2,
    open_s=5.0,
    overload_s=6.0,
    after_overload_s=6.0,
    million=20_000,
    billed_while_paid=5_000,
    resident=10_000,
    csv_rows=200_000,
    csv_people=20_000,
    idle_s=3.0,
    few_connections=(),
    few_loans=(),
    offered=(),
    peers=("bare", "sqlite-raw"),
)


class Stage:
    """One run's folder, ledgers and peers. Closing it stops what still runs."""

    def __init__(
        self, folder: Path, sizes: Sizes, say: Callable[[str], None], remote: Remote | None = None
    ) -> None:
        self.folder = folder
        self.sizes = sizes
        self.say = say
        self.remote = remote  # a service that runs elsewhere, in the place of those that are started here
        self.run_name = secrets.token_hex(4)  # makes transaction ids new
        self.left_out: list[str] = []
        self._ledgers: dict[LedgerName, Path] = {}
        self._unverified: list[_Unverified] = []
        self._stack = ExitStack()
        self._shared: dict[str, Any] = {}

    @property
    def is_remote(self) -> bool:
        """Only what can be seen through HTTP is measured, without peers."""
        return self.remote is not None

    def close(self) -> None:
        """Stop the peers."""
        self._stack.close()

    def shared(self, name: str, enter: Callable[[], AbstractContextManager[T]]) -> T:
        """Return a peer that several scenarios use: entered at first, left at the end of the run."""
        if name not in self._shared:
            self._shared[name] = self._stack.enter_context(enter())
        value: T = self._shared[name]
        return value

    def once(self, name: str, work: Callable[[], None]) -> None:
        """Do some work unless this run has done it."""
        if name not in self._shared:
            work()
            self._shared[name] = None

    def leave_out(self, findings: Findings, name: str, why: BaseException) -> None:
        """Note that a peer is missing: the others go on, and the run ends with exit code 1."""
        said = f"{name} is left out: {why}"
        self.say(f"  {said}")
        findings.notes.append(said)
        self.left_out.append(f"{findings.scenario}: {said}")

    # Ledgers -------------------------------------------------------------------------------------

    def ledger(self, name: LedgerName) -> Path:
        """Return a ledger's folder, made at first: "payments" on the real date, "million" in a sandbox."""
        if name not in self._ledgers:
            groups, sections = self._groups(name), self.sections(name)
            folder = self.folder / name
            folder.mkdir()
            self.say(f"making the {name} ledger: {sum(group.loans for group in groups):,} loans")
            config = write_config(folder, sections)
            book = asyncio.run(write_book(config, groups, self.sizes.seed))
            self.say(f"  {book.events:,} events in {book.seconds:.0f} s, {book.rate:,.0f}/s")
            self._ledgers[name] = folder
        return self._ledgers[name]

    def sections(self, name: LedgerName) -> Sections:
        """Return the settings that a ledger can't do without."""
        return {} if name == "payments" else {"clock": {"sandbox_start": SANDBOX_DAY}}

    def _groups(self, name: LedgerName) -> list[Group]:
        sizes = self.sizes
        if name == "payments":
            special = [Group(loans, payments) for loans, payments in sizes.statements]
            left = sizes.earlier_payments - sum(group.loans * group.payments_each for group in special)
            return [Group(sizes.loans, max(left, 0) // sizes.loans), *special]
        # The many fall due on days 30, 60 and 90 of theirs, those billed while others pay 5 days later.
        many_ago, some_ago = DAYS_LENT_AGO
        return [
            Group(sizes.million, days_ago=many_ago),
            Group(sizes.billed_while_paid, days_ago=some_ago),
            Group(1_000),
        ]

    @contextmanager
    def serve(
        self, name: LedgerName, sections: Sections | None = None, wrapper: Sequence[str] = ()
    ) -> Iterator[Service]:
        """Serve a ledger while the block runs, with other settings than the defaults where asked."""
        folder = self.ledger(name)
        with serving(folder, {**self.sections(name), **(sections or {})}, wrapper) as service:
            yield service

    @contextmanager
    def payments_service(self, sections: Sections | None = None) -> Iterator[Subject]:
        """Serve the payments' ledger likewise, or give the service that runs elsewhere; warm either way."""
        if self.remote is not None:
            self.warm(self.remote)
            yield self.remote
            return
        with self.serve("payments", sections) as service:
            self.warm(service)
            yield service

    # Loads ---------------------------------------------------------------------------------------

    def load_lua(self, subject: Subject) -> Path:
        """Write the loans and tokens for wrk once for each service, and return the file."""
        path = self.folder / f"load-{subject.port}.lua"
        if not path.exists():
            closedloop.write_load_lua(path, subject.loans, subject.tokens())
        return path

    def warm(self, subject: Subject) -> None:
        """Have every loan read into memory, every token verified, and the code run in."""
        loans, seconds = len(subject.loans), self.sizes.warm_s
        closedloop.wrk(subject.url, self.load_lua(subject), loans, 64, seconds)

    def in_turn(
        self, sides: Mapping[str, Callable[[], Load]], rounds: int | None = None
    ) -> dict[str, list[Load]]:
        """Run the sides one after another, round by round."""
        loads: dict[str, list[Load]] = {side: [] for side in sides}
        for number in range(rounds or self.sizes.rounds):
            for side, run in sides.items():
                load = run()
                loads[side].append(load)
                self.say(f"  round {number + 1}: {side:24} {load.rate:10,.0f}/s  {latencies(load)}")
        return loads

    @contextmanager
    def bare(self) -> Iterator[str]:
        """Run the bare server and yield its URL."""
        port = free_port()
        with (self.folder / "bare.log").open("wb") as log:
            server = subprocess.Popen([sys.executable, "-m", "bench.peers.bare", str(port)], stderr=log)
        try:
            wait_for_port(port, server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)

    # Checks --------------------------------------------------------------------------------------

    def check(self, findings: Findings, name: LedgerName, check: Check) -> None:
        """Keep a count of the journal, to be confirmed when the ledger is verified. Of a service elsewhere a
        sample was read back; nothing more can be confirmed there.
        """
        if self.remote is None:
            self.check_folder(findings, self._ledgers[name], self.sections(name), check)
        elif check.acknowledged != check.in_ledger:
            raise NotAResult(f"of {check.acknowledged} payments {check.in_ledger} could be read back")
        else:
            findings.notes.append(
                f"{check.in_ledger} acknowledged payments were read back; the ledger was not verified"
            )

    def check_folder(self, findings: Findings, folder: Path, sections: Sections, check: Check) -> None:
        """Keep a count on a ledger of the scenario's own."""
        self.say(f"  acknowledged {check.acknowledged:,}, in the ledger {check.in_ledger:,}")
        self._unverified.append(_Unverified(folder, sections, findings, len(findings.checks)))
        findings.checks.append(check)

    def verify_all(self) -> None:
        """Verify every ledger that was loaded, one on each core, and settle the checks of all findings."""
        sections_of = {each.folder: each.sections for each in self._unverified}
        folders, cores = list(sections_of), os.cpu_count() or 1
        for start in range(0, len(folders), cores):
            some = folders[start : start + cores]
            started_s = time.perf_counter()
            for folder in some:
                write_config(folder, sections_of[folder])
            running = [begin_verify(folder) for folder in some]
            for folder, process in zip(some, running, strict=True):
                verified, said = end_verify(process)
                seconds = time.perf_counter() - started_s
                self.say(f"verify of {folder.name}: {said} ({seconds:.0f} s)")
                self._settle(folder, f"`ledgerd verify` of the ledger {folder.name}: {said}", verified)
        self._unverified.clear()

    def _settle(self, folder: Path, said: str, verified: bool) -> None:
        for each in self._unverified:
            if each.folder == folder:
                checks, notes = each.findings.checks, each.findings.notes
                checks[each.place] = msgspec.structs.replace(checks[each.place], verify_ok=verified)
                if said not in notes:
                    notes.append(said)


class _Unverified(NamedTuple):
    """A check that waits for its ledger to be verified: `findings.checks[place]`."""

    folder: Path
    sections: Sections
    findings: Findings
    place: int


def wait_for_port(port: int, process: subprocess.Popen[bytes], within_s: float = 60.0) -> None:
    """Wait until something listens; raises NotAResult when the process ends or takes too long."""
    deadline_s = time.perf_counter() + within_s
    while time.perf_counter() < deadline_s and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise NotAResult(f"nothing listens on port {port}")


def latencies(load: Load) -> str:
    return "" if load.p99_ms is None else f"p50 {load.p50_ms:6.1f} ms  p99 {load.p99_ms:6.1f} ms"


def ratio(
    scenario: str,
    what: str,
    over: Sequence[Load],
    under: Sequence[Load],
    must: float | None = None,
    aim: float | None = None,
) -> Measure:
    """Return a ratio of rates, one a round, each from the two sides of that round."""
    rounds = [one.rate / other.rate for one, other in zip(over, under, strict=True)]
    return Measure(scenario=scenario, what=what, unit="x", rounds=rounds, must=must, aim=aim)


def rate(scenario: str, what: str, loads: Sequence[Load]) -> Measure:
    """Return a rate, one a round, that nothing is asked of."""
    return Measure(scenario=scenario, what=what, unit="1/s", rounds=[load.rate for load in loads])


def plain_load(
    scenario: str,
    side: str,
    seconds: float,
    count: int,
    p50_ms: float | None = None,
    p99_ms: float | None = None,
    share: float | None = None,
) -> Load:
    """Return the load of a closed loop in which all that was sent was answered."""
    return Load(
        scenario=scenario,
        side=side,
        seconds=seconds,
        offered=count,
        sent=count,
        answered=count,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        generator_cpu_share=share,
    )
