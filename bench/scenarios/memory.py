"""B9: a large ledger, of which a part is in memory."""

from __future__ import annotations

import uvloop

from bench import client
from bench.machine import rss_mb
from bench.results import Findings, Measure, Series
from bench.service import NotAResult, Service
from bench.stage import Stage

FEW = 1_000
CONNECTIONS = 32
STEPS = 4
IN_MEMORY = {"limits": {"resident_loans": 1_000_000, "resident_idle_s": 86_400}}
RESIDENT = "ledgerd_resident_loans"


def b9_memory(stage: Stage) -> Findings:
    """Bytes for each loan in memory, and the time from nothing to ready on a ledger of a million loans."""
    findings = Findings(scenario="B9", title="memory: many loans in the ledger, a part of them resident")
    bytes_each, ready_s = [], []
    for number in range(stage.sizes.rounds):
        with stage.serve("million", IN_MEMORY) as service:
            ready_s.append(service.ready_after_s)
            with service.audit("B9") as audit:
                points = bytes_over_resident(stage, service)
        stage.check(findings, "million", audit.check())
        bytes_each.append(points[-1][1])
        stage.say(
            f"  round {number + 1}: ready after {ready_s[-1]:.2f} s, {bytes_each[-1]:,.0f} bytes a loan"
        )
        if number == 0:
            findings.series.append(Series(plot="bytes-over-resident-loans", name="ledgerd", points=points))
    findings.measures += [
        Measure(
            scenario="B9",
            what="bytes of the front for each resident loan",
            unit="bytes",
            rounds=bytes_each,
            must=1_500.0,
            aim=700.0,
            more_is_better=False,
        ),
        Measure(
            scenario="B9",
            what="from the start to ready",
            unit="s",
            rounds=ready_s,
            must=3.0,
            aim=1.0,
            more_is_better=False,
        ),
    ]
    findings.notes.append(
        f"loans come into memory by a GET of each; the front's resident memory at {FEW:,} loans is taken off"
    )
    return findings


def bytes_over_resident(stage: Stage, service: Service) -> list[tuple[float, float]]:
    """Read more and more loans; return (loans, bytes for each) beyond the first few."""
    token = service.tokens(1)[0]
    front = service.pids[0]
    read = 0

    def read_up_to(count: int) -> float:
        nonlocal read
        requests = [client.get(f"/api/loans/{loan}/", token) for loan in service.loans[read:count]]
        answers = uvloop.run(client.Load(requests).run(service.port, CONNECTIONS))
        read = count
        resident = service.metrics()[RESIDENT]
        if answers.statuses[200] != len(requests) or resident != count:
            raise NotAResult(f"{resident:.0f} of {count} loans are in memory: {dict(answers.statuses)}")
        return rss_mb(front) * 2**20

    few_bytes = read_up_to(FEW)
    points = []
    for step in range(1, STEPS + 1):
        count = stage.sizes.resident * step // STEPS
        points.append((float(count), (read_up_to(count) - few_bytes) / (count - FEW)))
    return points
