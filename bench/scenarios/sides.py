"""The peers as sides of a round: each a function that runs one load and returns it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from bench import closedloop
from bench.results import Findings, Load
from bench.service import free_port
from bench.stage import Missing, Stage, Subject, plain_load

Side = Callable[[], Load]
CLIENTS = 64


def ledgerd_side(
    stage: Stage,
    subject: Subject,
    scenario: str,
    side: str,
    *,
    connections: int = CLIENTS,
    seconds: int | None = None,
    loans: int | None = None,
) -> Side:
    """Single payments by wrk over the first `loans` loans, all of them by default."""
    lua = stage.load_lua(subject)

    def run() -> Load:
        return closedloop.wrk(
            subject.url,
            lua,
            loans=loans or len(subject.loans),
            connections=connections,
            seconds=seconds or stage.sizes.load_s,
        ).to_load(scenario, side)

    return run


def bare_side(stage: Stage, subject: Subject, scenario: str, connections: int) -> Side:
    """The same requests to the bare server."""
    url = stage.shared("bare", stage.bare)
    lua = stage.load_lua(subject)

    def run() -> Load:
        return closedloop.wrk(
            url,
            lua,
            loans=len(subject.loans),
            connections=connections,
            seconds=stage.sizes.short_s,
        ).to_load(scenario, f"bare, {connections}")

    return run


def postgres(stage: Stage) -> Any:
    """The run's PostgreSQL cluster."""
    from bench.peers.postgres import Cluster  # noqa: PLC0415 - its packages may be missing

    def enter() -> AbstractContextManager[Any]:
        return Cluster(stage.folder, free_port())

    return stage.shared("postgres", enter)


def pgbench_side(
    stage: Stage, scenario: str, side: str, loans: int, clients: int = CLIENTS, seconds: int | None = None
) -> Side:
    """Payments by pgbench over the first `loans` rows of a book as large as ledgerd's."""
    from bench.peers import pgbench  # noqa: PLC0415

    cluster = postgres(stage)
    sizes = stage.sizes

    def prepared() -> None:
        stage.say("making pgbench's book")
        pgbench.prepare(cluster, sizes.loans, sizes.earlier_payments)

    stage.once("pgbench", prepared)

    def run() -> Load:
        ran = pgbench.payments_per_s(cluster, loans, clients, seconds or sizes.load_s)
        return plain_load(scenario, side, ran.payments / ran.rate, ran.payments, ran.p50_ms, ran.p99_ms)

    return run


def sqlite_raw_side(stage: Stage, scenario: str) -> Side:
    """The same payments as bare batches of 1,000 on one connection."""
    from bench.peers import sqlite_raw  # noqa: PLC0415

    sizes = stage.sizes

    def run() -> Load:
        per_s = sqlite_raw.payments_per_s(
            stage.folder, sizes.loans, 1_000, sizes.earlier_payments, float(sizes.short_s)
        )
        return plain_load(scenario, "sqlite-raw", sizes.short_s, round(per_s * sizes.short_s))

    return run


def add_peer(
    stage: Stage, findings: Findings, sides: dict[str, Side], name: str, make: Callable[[], Side]
) -> None:
    """Add a peer's side, or say why it is left out; what the run asked for and can't have fails it."""
    if name.partition(",")[0] not in stage.sizes.peers:
        return
    try:
        sides[name] = make()
    except (Missing, ImportError, OSError, RuntimeError) as error:
        stage.leave_out(findings, name, error)
    except Exception as error:
        if type(error).__name__ != "MissingPackage":
            raise
        stage.leave_out(findings, name, error)


def notes_of_refusals(findings: Findings, loads: Sequence[Load]) -> None:
    """Say so when a load had answers other than the one it was for."""
    for load in loads:
        if load.refused or load.broken:
            findings.notes.append(
                f"{load.side}: {load.refused:,} refused and {load.broken:,} broken of {load.sent:,}"
            )
