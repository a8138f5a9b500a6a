"""B11: pages of statements of loans with few payments and with many."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import uvloop

from bench import openloop
from bench.openloop import Plan
from bench.results import Findings, Measure
from bench.scenarios.sides import notes_of_refusals
from bench.service import NotAResult, Service
from bench.stage import Stage, Subject
from bench.traffic import Gets
from ledgerd.notify import Notifier
from ledgerd.observe import AccessLog
from ledgerd.server import serve
from ledgerd.storage import files
from ledgerd.storage.remote import RemoteStore
from ledgerd.storage.sqlite import connect_reader

CONNECTIONS = 4
RATE_PER_S = 100.0
PAGES = 5  # cursors of so many pages, one after another, are asked for
P99_MS = (25.0, 10.0)
QUERIES = (4.0, 2.0)
QUIET_S = 0.5


def b11_statement(stage: Stage) -> Findings:
    """The p99 of a page, the first and later ones, and how many queries a page takes."""
    findings = Findings(scenario="B11", title="statement: pages of loans with few and many payments")
    with stage.payments_service() as service:
        token = service.tokens(1)[0]
        pages = {
            name: paths
            for payments, loans in service.statement_loans
            for name, paths in pages_of(service, token, payments, loans).items()
        }
        p99_ms: dict[str, list[float]] = {name: [] for name in pages}
        with service.audit("B11") as audit:
            for number in range(stage.sizes.rounds):
                for name, paths in pages.items():
                    plan = Plan(
                        url=service.url,
                        rate_per_s=RATE_PER_S,
                        seconds=float(stage.sizes.short_s),
                        connections=CONNECTIONS,
                        seed=number,
                        requests=Gets(paths=paths, tokens=[token]),
                    )
                    load = openloop.run(plan).to_load("B11", name)
                    findings.loads.append(load)
                    if load.p99_ms is None:
                        raise NotAResult(f"{name}: no page was answered")
                    p99_ms[name].append(load.p99_ms)
                    stage.say(f"  round {number + 1}: {name:36} p99 {load.p99_ms:.1f} ms")
        stage.check(findings, "payments", audit.check())
    must, aim = P99_MS
    findings.measures += [
        Measure(
            scenario="B11",
            what=f"{name}, p99",
            unit="ms",
            rounds=rounds,
            must=must,
            aim=aim,
            more_is_better=False,
        )
        for name, rounds in p99_ms.items()
    ]
    if not stage.is_remote:
        findings.measures += query_measures(stage, pages)
    findings.notes.append(f"{RATE_PER_S:.0f} pages/s of 100 payments over {CONNECTIONS} connections")
    notes_of_refusals(findings, findings.loads)
    return findings


def pages_of(service: Subject, token: str, payments: int, loans: list[str]) -> dict[str, list[str]]:
    """Return the paths of first pages of some loans, and of later pages where there are any."""
    first, later = [], []
    for loan_id in loans:
        path = f"/api/get-statement/?loan_id={loan_id}"
        first.append(path)
        cursor = None
        for _ in range(PAGES):
            cursor = get(service, token, path if cursor is None else f"{path}&cursor={cursor}")["next_cursor"]
            if cursor is None:
                break
            later.append(f"{path}&cursor={cursor}")
    name = f"a loan with {payments:,} payments" if payments else "the loans given"
    return {f"{name}, first page": first, **({f"{name}, later pages": later} if later else {})}


def get(service: Subject, token: str, path: str) -> Any:
    connection = http.client.HTTPConnection(service.host, service.port, timeout=30)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return json.loads(body)
    finally:
        connection.close()


# Queries -----------------------------------------------------------------------------------------


def query_measures(stage: Stage, pages: dict[str, list[str]]) -> list[Measure]:
    """Count the statements that the store runs for a page: the service in this process, its connections
    traced, on the same ledger.
    """
    counts = uvloop.run(count_queries(Service(stage.ledger("payments"), {}), pages))
    must, aim = QUERIES
    return [
        Measure(
            scenario="B11",
            what=f"queries for a page, {loan}",
            unit="queries",
            rounds=[float(max(count[loan] for count in counts.values()))],
            must=must,
            aim=aim,
            more_is_better=False,
        )
        for loan in ("the loan in memory", "the loan not in memory")
    ]


async def count_queries(service: Service, pages: dict[str, list[str]]) -> dict[str, dict[str, int]]:
    """Return for each kind of page how many queries it takes when the loan is read first, and then again."""
    counts: dict[str, dict[str, int]] = {}
    token = service.tokens(1)[0]
    with traced() as statements:
        async with serving_here(service):
            await settled(statements)
            seen: set[str] = set()
            for name, paths in pages.items():
                # A loan that the kinds before have not brought into memory, where there is one.
                path = next((each for each in paths if each.partition("&")[0] not in seen), paths[-1])
                seen.add(path.partition("&")[0])
                counts[name] = {}
                for loan in ("the loan not in memory", "the loan in memory"):
                    statements.clear()
                    await asyncio.to_thread(get, service, token, path)
                    counts[name][loan] = len(statements)
    return counts


class Manager(Notifier):
    """Hears in this process what systemd would be told."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = asyncio.Event()

    def tell(self, *lines: str) -> None:
        if "READY=1" in lines:
            self.ready.set()


@asynccontextmanager
async def serving_here(service: Service) -> AsyncIterator[None]:
    """Serve in this process while the block runs; stopped as by an operator."""
    manager = Manager()
    serving = asyncio.ensure_future(serve(service.config, AccessLog(None), manager))
    waiting = asyncio.ensure_future(manager.ready.wait())
    await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        yield
    finally:
        if not serving.done():
            signal.raise_signal(signal.SIGTERM)
        await serving


async def settled(statements: list[str]) -> None:
    """Wait until what the service does at its start has been done."""
    before = -1
    while before != len(statements):
        before = len(statements)
        await asyncio.sleep(QUIET_S)


@contextmanager
def traced() -> Iterator[list[str]]:
    """Have the store run in this process meanwhile; the list fills with what its readers run."""
    statements: list[str] = []
    connect = connect_reader

    def connect_traced(target: str) -> sqlite3.Connection:
        connection = connect(target)
        connection.set_trace_callback(note)
        return connection

    def note(statement: str) -> None:
        if statement not in {"BEGIN", "COMMIT"}:
            statements.append(statement)

    async def start_here(tables: Path, journal: Path, lock: Path, batch: int, *_: Any) -> Any:
        return await files.open_engine(tables, journal, lock, batch)

    with (
        mock.patch.object(files, "connect_reader", connect_traced),
        mock.patch.object(RemoteStore, "start", start_here),
    ):
        yield statements
