"""B5: the load of B1 on a disk that takes 2 ms longer for each sync."""

from __future__ import annotations

import shutil

from bench.results import Findings, Load, Measure
from bench.scenarios.sides import ledgerd_side, notes_of_refusals
from bench.stage import Missing, Stage, rate, ratio

DELAY_US = 2_000


def slow_disk() -> list[str]:
    """Return the command that makes each sync of what it runs take longer. Only syncs stop for it."""
    strace = shutil.which("strace")
    if strace is None:
        raise Missing("strace is needed: install Debian's package of that name")
    syncs = "fsync,fdatasync"
    return [
        *(strace, "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"),
        *("-e", f"trace={syncs}", "-e", f"inject={syncs}:delay_exit={DELAY_US}"),
    ]


def b5_slow_disk(stage: Stage) -> Findings:
    """The same service on the same ledger, started in turn as it is and under a slow disk."""
    findings = Findings(scenario="B5", title="slow disk: 2 ms added to each sync")
    wrappers = {"wide": [], "wide, slow disk": slow_disk()}
    loads: dict[str, list[Load]] = {side: [] for side in wrappers}
    alone_ms: dict[str, list[float]] = {side: [] for side in wrappers}
    for number in range(stage.sizes.rounds):
        for side, wrapper in wrappers.items():
            with stage.serve("payments", wrapper=wrapper) as service:
                stage.warm(service)
                with service.audit("B5") as audit:
                    one = ledgerd_side(stage, service, "B5", "one connection", connections=1, seconds=1)()
                    load = ledgerd_side(stage, service, "B5", side)()
                stage.check(findings, "payments", audit.check())
            alone_ms[side].append(one.p50_ms or 0.0)
            loads[side].append(load)
            stage.say(
                f"  round {number + 1}: {side:16} {load.rate:8,.0f}/s  one connection p50 {one.p50_ms:.2f} ms"
            )
    plain, slow = loads.values()
    findings.measures += [
        ratio("B5", "wide on the slow disk, over B1", slow, plain, 0.6, 0.9),
        rate("B5", "wide on the slow disk", slow),
        *(
            Measure(
                scenario="B5",
                what=f"one connection, p50, {side}",
                unit="ms",
                rounds=each,
                more_is_better=False,
            )
            for side, each in alone_ms.items()
        ),
    ]
    findings.loads += [*plain, *slow]
    findings.notes.append("one connection waits for its own sync each time: its p50 shows the slower disk")
    notes_of_refusals(findings, findings.loads)
    return findings
