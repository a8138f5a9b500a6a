"""B7: a billing run over a million loans that are due, and payments meanwhile."""

from __future__ import annotations

import time
from typing import Any

import uvloop

from bench.machine import peak_mb
from bench.results import Findings, Measure, Series
from bench.scenarios.paying import idle, p99_over_idle, paid, pay_while
from bench.scenarios.sides import postgres
from bench.service import NotAResult, Service
from bench.stage import DAYS_LENT_AGO, Stage
from ledgerd.control import run_command
from ledgerd.domain.calendar import format_day, parse_day

CYCLE_DAYS = 30
Points = list[tuple[float, float]]


def b7_billing(stage: Stage) -> Findings:
    """A billing run over all loans, over two statements of SQL, and payments while others are billed.

    Each round bills one cycle of all loans while nobody pays, and then one of some more while eight
    connections pay loans that are not due.
    """
    findings = Findings(scenario="B7", title="billing: a million loans due")
    sizes = stage.sizes
    rounds = min(sizes.rounds, 3)  # so many cycles are due in the ledger
    took_s, over_sql, sql_s = [], [], []
    idles, busies = [], []
    with stage.serve("million") as service:
        sql_set = sql_set_s(stage, findings)
        with service.audit("B7") as audit:
            for number in range(rounds):
                points, seconds = uvloop.run(bill_alone(stage, service, number))
                took_s.append(seconds)
                if sql_set is not None:
                    sql_s.append(sql_set())
                    over_sql.append(seconds / sql_s[-1])
                before, meanwhile = uvloop.run(bill_while_paid(stage, service, number))
                idles.append(before)
                busies.append(meanwhile)
                stage.say(
                    f"  round {number + 1}: billed in {seconds:.1f} s"
                    f"{f', by SQL in {sql_s[-1]:.1f} s' if sql_s else ''};"
                    f" payments p99 {before.p99_ms:.1f} ms, meanwhile {meanwhile.p99_ms:.1f} ms"
                )
                if number == 0:
                    findings.series.append(
                        Series(plot="billing-time-over-loans", name="ledgerd", points=points)
                    )
            peaks_mb = [peak_mb(pid) for pid in service.pids]
        stage.check(findings, "million", audit.check())
    if over_sql:
        findings.measures.append(
            Measure(
                scenario="B7",
                what="time over sql-set",
                unit="x",
                rounds=over_sql,
                must=6.0,
                aim=2.0,
                more_is_better=False,
            )
        )
    findings.measures.append(p99_over_idle("B7", "payments' p99 during it over idle", idles, busies))
    findings.measures.append(
        Measure(
            scenario="B7",
            what="loans billed a second",
            unit="1/s",
            rounds=[sizes.million / s for s in took_s],
        )
    )
    findings.loads += [*idles, *busies]
    findings.notes.append(
        f"{sizes.million:,} loans each round while nobody pays, then {sizes.billed_while_paid:,} while 8"
        f" connections pay others; most memory: front {peaks_mb[0]:.0f} MB, store {peaks_mb[1]:.0f} MB"
    )
    return findings


async def bill(service: Service, through: int, expected: int) -> tuple[Points, float]:
    """Run `ledgerd bill` through the service; return how far it was when, and its seconds."""
    points: Points = []
    started_s = time.perf_counter()

    def progress(done: int, _total: int, _rows_per_s: int = 0, /) -> None:
        if done:
            points.append((float(done), time.perf_counter() - started_s))

    shown: dict[str, Any] = await run_command(service.config, "bill", {"date": format_day(through)}, progress)
    if shown["billed"] != expected or shown["failed"]:
        raise NotAResult(f"billed {shown['billed']} of {expected}, {shown['failed']} failed")
    points.append((float(expected), float(shown["seconds"])))
    return points[:: max(len(points) // 20, 1)], float(shown["seconds"])


async def bill_alone(stage: Stage, service: Service, number: int) -> tuple[Points, float]:
    return await bill(service, due_day(service, 0, number), stage.sizes.million)


async def bill_while_paid(stage: Stage, service: Service, number: int) -> tuple[Any, Any]:
    payers = service.book.groups[2]
    name = f"b7-{stage.run_name}-{number}"
    before = await idle(service, payers, f"{name}-idle", stage.sizes.idle_s)
    billing = bill(service, due_day(service, 1, number), stage.sizes.billed_while_paid)
    meanwhile, _ = await pay_while(service, payers, f"{name}-busy", billing)
    return paid("B7", "payments, idle", before), paid("B7", "payments, while billed", meanwhile)


def due_day(service: Service, group: int, number: int) -> int:
    """Return the day on which a group's bill of the round falls due."""
    today = parse_day(service.config.clock.sandbox_start)
    assert today is not None
    return today - DAYS_LENT_AGO[group] + CYCLE_DAYS * (number + 1)


def sql_set_s(stage: Stage, findings: Findings) -> Any:
    """Return what bills as many loans by SQL and returns the seconds; None when PostgreSQL is left out."""
    if "sql-set" not in stage.sizes.peers:
        return None
    try:
        from bench.peers import sql_set  # noqa: PLC0415

        cluster = postgres(stage)
    except Exception as error:  # noqa: BLE001 - the rest of the scenario goes on, and the run fails
        stage.leave_out(findings, "sql-set", error)
        return None
    return lambda: sql_set.bill_s(cluster, stage.sizes.million)
