"""B8: a large bank history imported through the service, over reading it with the csv module alone."""

from __future__ import annotations

import asyncio
import csv
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.book import Group, write_book
from bench.machine import children, peak_mb
from bench.results import Findings, Measure
from bench.scenarios.paying import idle, p99_over_idle, paid, pay_while
from bench.service import NotAResult, Service, serving, write_config
from bench.stage import Stage
from ledgerd.control import run_command
from ledgerd.sample import write_sample

PAYERS = 1_000
PART_WHILE_PAID = 5  # the file that is imported while others pay is so many times smaller


def b8_scoring(stage: Stage) -> Findings:
    """Import a history into a new ledger, storing and scoring; then a smaller one while others pay."""
    findings = Findings(scenario="B8", title="scoring: a bank history imported")
    sizes = stage.sizes
    histories = [stage.folder / "history.csv", stage.folder / "history-while-paid.csv"]
    for seed, (path, part) in enumerate(zip(histories, (1, PART_WHILE_PAID), strict=True)):
        stage.say(f"making {path.name}")
        people = sizes.csv_people // part
        write_sample(path, people, seed, rows_each=sizes.csv_rows // sizes.csv_people)
    over: dict[str, list[float]] = {"plain": [], "duckdb": []}
    rates: list[float] = []
    peaks_mb: list[dict[str, float]] = []
    idles, busies = [], []
    duckdb = duckdb_rows_per_s(stage, findings)
    for number in range(sizes.rounds):
        folder = stage.folder / f"scoring-{number + 1}"
        folder.mkdir()
        asyncio.run(write_book(write_config(folder, {}), [Group(PAYERS)], sizes.seed))
        rows, plain_s = plain_loop(histories[0])
        with serving(folder, {}) as service:
            imported = uvloop.run(import_timed(service, histories[0]))
            if imported["rows"] != rows:
                raise NotAResult(f"{rows} rows in the file, {imported['rows']} imported")
            rates.append(rows / imported["seconds"])
            peaks_mb.append(imported["peaks_mb"])
            over["plain"].append(rates[-1] / (rows / plain_s))
            if duckdb is not None:
                over["duckdb"].append(rates[-1] / duckdb(histories[0]).rate)
            with service.audit("B8") as audit:
                before, meanwhile = uvloop.run(import_while_paid(stage, service, histories[1]))
        stage.check_folder(findings, folder, {}, audit.check())
        idles.append(before)
        busies.append(meanwhile)
        stage.say(
            f"  round {number + 1}: {rates[-1]:,.0f} rows/s, over plain {over['plain'][-1]:.2f};"
            f" payments p99 {before.p99_ms:.1f} ms, meanwhile {meanwhile.p99_ms:.1f} ms"
        )
    findings.loads += [*idles, *busies]
    findings.measures += measures(over, rates, peaks_mb)
    findings.measures.append(p99_over_idle("B8", "payments' p99 during it over idle", idles, busies))
    for path in histories:
        path.unlink()
    return findings


def measures(
    over: dict[str, list[float]], rates: list[float], peaks_mb: list[dict[str, float]]
) -> list[Measure]:
    found = [
        Measure(
            scenario="B8",
            what="rows/s over the csv module's plain loop",
            unit="x",
            rounds=over["plain"],
            must=0.4,
            aim=1.0,
        ),
        Measure(scenario="B8", what="rows/s", unit="1/s", rounds=rates),
        Measure(
            scenario="B8",
            what="most memory of the importing process",
            unit="MB",
            rounds=[each["importer"] for each in peaks_mb],
            must=300.0,
            aim=150.0,
            more_is_better=False,
        ),
    ]
    if over["duckdb"]:
        # Nothing must be reached here: DuckDB sums alone, and stores nothing.
        found.append(
            Measure(scenario="B8", what="rows/s over duckdb", unit="x", rounds=over["duckdb"], aim=0.5)
        )
    found += [
        Measure(
            scenario="B8",
            what=f"most memory of the {name}",
            unit="MB",
            rounds=[each[name] for each in peaks_mb],
            more_is_better=False,
        )
        for name in ("store", "front")
    ]
    return found


def plain_loop(history: Path) -> tuple[int, float]:
    """Return how many rows the csv module read and summed exactly for each id, and in how many seconds."""
    started_s = time.perf_counter()
    balances: dict[str, int] = {}
    rows = 0
    with history.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        next(reader)
        for identity, _day, kind, amount in reader:
            rupees, _, paise = amount.partition(".")
            amount_paise = int(rupees) * 100 + int(paise)
            balances[identity] = balances.get(identity, 0) + (
                amount_paise if kind == "CREDIT" else -amount_paise
            )
            rows += 1
    return rows, time.perf_counter() - started_s


async def import_timed(service: Service, history: Path) -> dict[str, Any]:
    """Run the command until it has scored; return its rows, seconds and the most memory of each process."""
    front, store = service.pids
    importer_mb = 0.0

    def look(*_: int) -> None:
        nonlocal importer_mb
        importer_mb = max([importer_mb, *(peak_mb(pid) for pid in children(front) if pid != store)])

    started_s = time.perf_counter()
    summary = await run_command(service.config, "import_transactions", {"path": str(history)}, look)
    seconds = time.perf_counter() - started_s
    peaks_mb = {"importer": importer_mb, "store": peak_mb(store), "front": peak_mb(front)}
    return {"seconds": seconds, "rows": summary["rows_imported"], "peaks_mb": peaks_mb}


async def import_while_paid(stage: Stage, service: Service, history: Path) -> tuple[Any, Any]:
    name = f"b8-{stage.run_name}"
    before = await idle(service, service.loans, f"{name}-idle", stage.sizes.idle_s)
    meanwhile, _ = await pay_while(service, service.loans, f"{name}-busy", import_timed(service, history))
    return paid("B8", "payments, idle", before), paid("B8", "payments, while imported", meanwhile)


def duckdb_rows_per_s(stage: Stage, findings: Findings) -> Any:
    """Return what sums the file by DuckDB and returns rows/s; None when it is left out."""
    if "duckdb" not in stage.sizes.peers:
        return None
    try:
        from bench.peers import duckdb_sum  # noqa: PLC0415
    except ImportError as error:
        stage.leave_out(findings, "duckdb", error)
        return None
    return duckdb_sum.rows_per_s
