"""B4 and B6: an open loop, below what the service can do and far above it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from bench import openloop
from bench.machine import rss_mb
from bench.openloop import OpenLoopResult, Plan
from bench.results import Findings, Load, Measure, Series
from bench.scenarios.sides import ledgerd_side, notes_of_refusals
from bench.service import NotAResult
from bench.stage import Stage, Subject
from bench.traffic import Payments, Phase

CONNECTIONS = 256
SHARES = (0.50, 0.80)
P99_MS = {0.50: (20.0, 5.0), 0.80: (50.0, 15.0)}  # must, aim
OVERLOAD_CONNECTIONS = 1_024
OVERLOAD = {"server": {"connections_per_address": 2_048}}
SLICE_S = 0.25
NORMAL = 2.0  # a p99 is normal again up to so many times what it settles at ..
NORMAL_MS = 20.0  # .. or up to so many ms
RSS_GROWTH_MAX = 1.5


def b4_latency(stage: Stage) -> Findings:
    """Latency from the intended send time at 50 % and 80 % of the rate of B1, loans by Zipf 1.0."""
    findings = Findings(scenario="B4", title="latency: an open loop at a part of the rate of B1")
    with stage.payments_service() as service:
        with service.audit("B4") as audit:
            b1 = measure_b1(stage, service, findings)
            processes = proven(stage, findings, 2 * b1)
            requests = Payments(loans=service.loans, tokens=service.tokens(), skew="zipf:1.0")

            def run(share: float, seconds: float, seed: int) -> OpenLoopResult:
                return openloop.run(
                    Plan(
                        url=service.url,
                        rate_per_s=share * b1,
                        seconds=seconds,
                        connections=CONNECTIONS,
                        seed=seed,
                        requests=requests,
                        processes=processes,
                    )
                )

            loads: dict[float, list[Load]] = {share: [] for share in SHARES}
            for number in range(stage.sizes.rounds):
                for share in SHARES:
                    load = run(share, stage.sizes.open_s, number).to_load("B4", f"{share:.0%} of B1")
                    loads[share].append(load)
                    stage.say(f"  round {number + 1}: {load.side:14} p99 {load.p99_ms:.1f} ms")
            series = [
                (share, run(share, stage.sizes.short_s, 100).to_load("B4", "series").p99_ms)
                for share in stage.sizes.offered
            ]
        stage.check(findings, "payments", audit.check())
    for share, of_share in loads.items():
        must, aim = P99_MS[share]
        name = f"{share:.0%} of the rate of B1"
        findings.measures += [
            latency(f"{name}, p50", [load.p50_ms for load in of_share]),
            latency(f"{name}, p99", [load.p99_ms for load in of_share], must, aim),
            latency(f"{name}, p99.9", [load.p999_ms for load in of_share]),
        ]
        findings.loads += of_share
    points = [(share * b1, p99_ms) for share, p99_ms in series if p99_ms is not None]
    if points:
        findings.series.append(Series(plot="p99-over-offered-rate", name="ledgerd", points=points))
    notes_of_refusals(findings, findings.loads)
    return findings


def latency(
    what: str, rounds: list[float | None], must: float | None = None, aim: float | None = None
) -> Measure:
    known = [each for each in rounds if each is not None]
    return Measure(
        scenario="B4", what=what, unit="ms", rounds=known, must=must, aim=aim, more_is_better=False
    )


def measure_b1(stage: Stage, service: Subject, findings: Findings) -> float:
    """Return the rate of B1 now, at 64 connections: the middle of three loads."""
    side = ledgerd_side(stage, service, findings.scenario, "wide, now", seconds=stage.sizes.short_s)
    loads = [side() for _ in range(3)]
    findings.loads += loads
    b1 = median(load.rate for load in loads)
    findings.notes.append(f"the rate of B1, measured at the beginning: {b1:,.0f}/s")
    stage.say(f"  the rate of B1 now: {b1:,.0f}/s")
    return b1


def proven(stage: Stage, findings: Findings, rate_per_s: float) -> int:
    """Return with how many processes the generator keeps its schedule at a rate; it fails when with none."""
    for processes in (1, 2):
        proof = openloop.prove(rate_per_s, processes=processes)
        said = (
            f"the generator offers {proof.offered_per_s:,.0f}/s in {processes} process(es), sent late by p99"
            f" {proof.send_lag_p99_ms:.2f} ms, with {proof.generator_cpu_share:.0%} of all cores"
        )
        stage.say(f"  {said}")
        if proof.ok:
            findings.notes.append(said)
            return processes
    raise NotAResult(f"the generator can't offer {rate_per_s:,.0f}/s here; see above")


# Overload ----------------------------------------------------------------------------------------


def b6_overload(stage: Stage) -> Findings:
    """Twice the rate of B1 over 1,024 connections, then half of it."""
    findings = Findings(scenario="B6", title="overload: 200 % of the rate of B1, then 50 %")
    sizes = stage.sizes
    goodput, recovery, growth = [], [], []
    with stage.payments_service(OVERLOAD) as service:
        with service.audit("B6") as audit:
            b1 = measure_b1(stage, service, findings)
            processes = proven(stage, findings, 2 * b1)
            requests = Payments(loans=service.loans, tokens=service.tokens())
            for number in range(sizes.rounds):
                plan = Plan(
                    url=service.url,
                    rate_per_s=2 * b1,
                    seconds=sizes.overload_s,
                    then=[Phase(0.5 * b1, sizes.after_overload_s)],
                    connections=OVERLOAD_CONNECTIONS,
                    queue=OVERLOAD_CONNECTIONS,
                    seed=number,
                    requests=requests,
                    processes=processes,
                    slice_s=SLICE_S,
                )
                with watch_rss(service) as seen_mb:
                    result = openloop.run(plan)
                goodput.append(result.goodput_per_s(0, sizes.overload_s) / b1)
                recovery.append(recovered_after_s(result, sizes.overload_s))
                growth += [max(seen_mb) / seen_mb[0]] if seen_mb else []
                end_s = sizes.overload_s + sizes.after_overload_s
                findings.loads += [
                    result.to_load("B6", "200 % of B1", 0, sizes.overload_s),
                    result.to_load("B6", "then 50 %", sizes.overload_s, end_s),
                ]
                stage.say(
                    f"  round {number + 1}: goodput {goodput[-1]:.2f}, normal after {recovery[-1]:.2f} s"
                )
                if number == 0:
                    findings.series += over_time(result)
        stage.check(findings, "payments", audit.check())
    findings.measures += [
        Measure(scenario="B6", what="goodput over B1", unit="x", rounds=goodput, must=0.6, aim=0.85),
        Measure(
            scenario="B6",
            what="until the p99 is normal again",
            unit="s",
            rounds=recovery,
            must=5.0,
            aim=1.0,
            more_is_better=False,
        ),
    ]
    if growth:
        findings.measures.append(
            Measure(
                scenario="B6",
                what="most memory of the front over that before",
                unit="x",
                rounds=growth,
                must=RSS_GROWTH_MAX,
                more_is_better=False,
            )
        )
    return findings


def recovered_after_s(result: OpenLoopResult, overload_s: float) -> float:
    """Return the seconds from the end of the overload to the first whole second whose p99s are all normal;
    to the end of the phase when there is none.

    Normal is what the last third of the phase shows, with some room. A lone spike later is the load's own:
    it comes without an overload, too.
    """
    after = result.slices[round(overload_s / result.slice_s) : round(result.scheduled_s / result.slice_s)]
    p99_ms = [each.latency.percentile_ms(99) if each.answered else float("inf") for each in after]
    settled_ms = median(p99_ms[-len(p99_ms) // 3 :])
    limit_ms = max(settled_ms * NORMAL, NORMAL_MS)
    slices_a_second = round(1 / result.slice_s)
    for place in range(len(p99_ms) - slices_a_second + 1):
        if max(p99_ms[place : place + slices_a_second]) <= limit_ms:
            return place * result.slice_s
    return len(p99_ms) * result.slice_s


def over_time(result: OpenLoopResult) -> list[Series]:
    """Return what was offered, answered and dropped in each second of an overload and after it."""
    lines: dict[str, list[tuple[float, float]]] = {"offered": [], "answered": [], "dropped": []}
    for second in range(int(result.scheduled_s)):
        part = result.part(second, second + 1)
        counts = (part.offered, part.answered_here, part.dropped)
        for points, count in zip(lines.values(), counts, strict=True):
            points.append((float(second), float(count)))
    return [
        Series(plot="payments-each-second-over-time", name=name, points=points)
        for name, points in lines.items()
    ]


@contextmanager
def watch_rss(service: Subject, every_s: float = 0.25) -> Iterator[list[float]]:
    """Look at the front's memory while the block runs; the list fills with MB, the first before the load."""
    seen_mb: list[float] = []
    if service.front_pid is None:
        yield seen_mb
        return
    front = service.front_pid
    seen_mb.append(rss_mb(front))
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(every_s):
            seen_mb.append(rss_mb(front))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen_mb
    finally:
        ended.set()
        thread.join()
