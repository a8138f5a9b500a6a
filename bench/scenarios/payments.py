"""B1 and B2: single payments over many loans and on one, as fast as they are answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from bench.results import Findings, Load, Measure, Series
from bench.scenarios.django import django_side
from bench.scenarios.sides import (
    Side,
    add_peer,
    bare_side,
    ledgerd_side,
    notes_of_refusals,
    pgbench_side,
)
from bench.stage import Stage, Subject, rate, ratio


def b1_wide(stage: Stage) -> Findings:
    """Single payments over all loans at 64 and 256 connections, over bare, django and pgbench."""
    findings = Findings(scenario="B1", title="wide: single payments over many loans")
    with stage.payments_service() as service:
        sides: dict[str, Side] = {}
        for connections in (64, 256):
            bare = partial(bare_side, stage, service, "B1", connections)
            add_peer(stage, findings, sides, f"bare, {connections}", bare)
            side = f"wide, {connections}"
            sides[side] = ledgerd_side(stage, service, "B1", side, connections=connections)
        add_peer(stage, findings, sides, "django", lambda: django_side(stage, findings))
        add_peer(
            stage, findings, sides, "pgbench", lambda: pgbench_side(stage, "B1", "pgbench", stage.sizes.loans)
        )
        with service.audit("B1") as audit:
            loads = stage.in_turn(sides)
            series = over_connections(stage, service, loads)
        stage.check(findings, "payments", audit.check())
    findings.measures += wide_measures(loads)
    findings.series += series
    findings.loads += [load for side in loads.values() for load in side]
    notes_of_refusals(findings, findings.loads)
    return findings


def wide_measures(loads: dict[str, list[Load]]) -> list[Measure]:
    measures = []
    for connections in (64, 256):
        wide, bare = loads[f"wide, {connections}"], loads.get(f"bare, {connections}")
        if bare is not None:
            what = f"{connections} connections, over bare"
            measures.append(ratio("B1", what, wide, bare, 0.50, 0.80))
    for peer, must, aim in (("django", 10.0, 25.0), ("pgbench", 1.0, 1.5)):
        if peer in loads:
            measures.append(
                ratio("B1", f"64 connections, over {peer}", loads["wide, 64"], loads[peer], must, aim)
            )
    return measures + [rate("B1", f"{many} connections", loads[f"wide, {many}"]) for many in (64, 256)]


def over_connections(stage: Stage, service: Subject, loads: dict[str, list[Load]]) -> list[Series]:
    """Return the rate over the number of connections, ledgerd's and bare's."""
    sides: dict[str, Callable[[int], Side]] = {
        "wide": lambda few: ledgerd_side(
            stage, service, "B1", "few", connections=few, seconds=stage.sizes.short_s
        ),
        "bare": lambda few: bare_side(stage, service, "B1", few),
    }
    lines = []
    for name, with_few in sides.items():
        if f"{name}, 64" in loads:
            points = [(float(few), with_few(few)().rate) for few in stage.sizes.few_connections]
            points += [(float(many), median_rate(loads[f"{name}, {many}"])) for many in (64, 256)]
            line = "ledgerd" if name == "wide" else name
            lines.append(Series(plot="rate-over-connections", name=line, points=points))
    return lines


def median_rate(loads: Sequence[Load]) -> float:
    return median(load.rate for load in loads)


def b2_hot(stage: Stage) -> Findings:
    """All payments on one loan, over the same on all loans and over pgbench on one row."""
    findings = Findings(scenario="B2", title="hot: all payments on one loan")
    with stage.payments_service() as service:
        sides = {
            "wide": ledgerd_side(stage, service, "B2", "wide"),
            "hot": ledgerd_side(stage, service, "B2", "hot", loans=1),
        }
        add_peer(stage, findings, sides, "pgbench", lambda: pgbench_side(stage, "B2", "pgbench, one row", 1))
        with service.audit("B2") as audit:
            loads = stage.in_turn(sides)
            findings.series += over_skew(stage, service, loads)
        stage.check(findings, "payments", audit.check())
    findings.measures.append(
        ratio("B2", "one loan, over all loans (B1)", loads["hot"], loads["wide"], 0.9, 1.0)
    )
    if "pgbench" in loads:
        findings.measures.append(
            ratio("B2", "one loan, over pgbench on one row", loads["hot"], loads["pgbench"], 8.0, 15.0)
        )
    findings.measures.append(rate("B2", "one loan", loads["hot"]))
    findings.loads += [load for side in loads.values() for load in side]
    notes_of_refusals(findings, findings.loads)
    return findings


def over_skew(stage: Stage, service: Subject, loads: dict[str, list[Load]]) -> list[Series]:
    """Return the rate over how many loans are paid, ledgerd's and pgbench's."""
    seconds, all_loans = stage.sizes.short_s, len(service.loans)
    some = [count for count in stage.sizes.few_loans if count < all_loans]

    def points(rates: dict[int, float]) -> list[tuple[float, float]]:
        return sorted((float(count), each) for count, each in rates.items())

    ledgerd = {1: median_rate(loads["hot"])}
    ledgerd[all_loans] = median_rate(loads["wide"])
    for count in some:
        ledgerd[count] = ledgerd_side(stage, service, "B2", "some", loans=count, seconds=seconds)().rate
    lines = [Series(plot="rate-over-skew", name="ledgerd", points=points(ledgerd))]
    if "pgbench" in loads:
        rows = {1: median_rate(loads["pgbench"])}
        for count in (*some, all_loans):
            rows[count] = pgbench_side(stage, "B2", "some rows", count, seconds=seconds)().rate
        lines.append(Series(plot="rate-over-skew", name="pgbench", points=points(rows)))
    return lines
