"""B11: pages of statements of loans with few payments and with many."""

from __future__ import annotations

import asyncio
import http.client
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import uvloop

from bench import openloop
from bench.openloop import Plan
from bench.results import Findings, Measure
from bench.scenarios.sides import notes_of_refusals
from bench.service import Service
from bench.stage import Stage, Subject
from bench.traffic import Gets
from ledgerd.observe import AccessLog
from ledgerd.server import serve
from ledgerd.storage import files
from ledgerd.storage.remote import RemoteStore

CONNECTIONS = 4
RATE_PER_S = 100.0
PAGES = 5  # cursors of so many pages, one after another, are asked for
P99_MS = (25.0, 10.0)
QUERIES = (4.0, 2.0)


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
                    p99_ms[name].append(load.p99_ms or float("inf"))
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
    with traced() as statements:
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.ensure_future(
            serve(service.config, AccessLog(None), lambda _host, port: ready.set_result(port))
        )
        await asyncio.wait([serving, ready], return_when=asyncio.FIRST_COMPLETED)
        token = service.tokens(1)[0]
        seen: set[str] = set()
        for name, paths in pages.items():
            counts[name] = {}
            # The last loan of the kind for later pages: the first page has not brought it into memory.
            path = next((path for path in reversed(paths) if path.partition("&")[0] not in seen), paths[-1])
            seen.add(path.partition("&")[0])
            for loan in ("the loan not in memory", "the loan in memory"):
                statements.clear()
                await asyncio.to_thread(get, service, token, path)
                counts[name][loan] = len(statements)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    return counts


@contextmanager
def traced() -> Iterator[list[str]]:
    """Have the store run in this process meanwhile; the list fills with what its readers run."""
    statements: list[str] = []
    connect = files.connect_reader

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
