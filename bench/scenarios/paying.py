"""Payments that go on while something else is measured: a few connections, each as fast as it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from bench import client
from bench.client import Answers
from bench.results import Load, Measure
from bench.service import Service
from bench.stage import plain_load

T = TypeVar("T")

CONNECTIONS = 8


async def idle(service: Service, loans: Sequence[str], name: str, seconds: float) -> Answers:
    """Pay for some seconds while nothing else goes on."""
    return (await pay_while(service, loans, name, asyncio.sleep(seconds)))[0]


async def pay_while(
    service: Service, loans: Sequence[str], name: str, work: Awaitable[T]
) -> tuple[Answers, T]:
    """Pay until some work is done; return what came of both. `name` makes the transaction ids new."""
    load = client.Load(client.payments(loans, service.tokens(CONNECTIONS), name))
    paying = asyncio.ensure_future(load.run(service.port, CONNECTIONS))
    try:
        done = await work
    finally:
        load.stop()
        answers = await paying
    return answers, done


def paid(scenario: str, side: str, answers: Answers) -> Load:
    return plain_load(
        scenario,
        side,
        answers.seconds,
        answers.statuses[201],
        answers.percentile_ms(0.50),
        answers.percentile_ms(0.99),
    )


def p99_over_idle(scenario: str, what: str, idle: Sequence[Load], busy: Sequence[Load]) -> Measure:
    """Return how much longer payments take, one value a round."""
    rounds = [
        meanwhile.p99_ms / before.p99_ms
        for before, meanwhile in zip(idle, busy, strict=True)
        if before.p99_ms and meanwhile.p99_ms
    ]
    return Measure(
        scenario=scenario, what=what, unit="x", rounds=rounds, must=3.0, aim=1.5, more_is_better=False
    )
