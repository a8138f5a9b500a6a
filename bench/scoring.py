"""`make bench-scoring`: importing a bank history through the service, over the csv module's plain loop.

The plain loop parses the same file into an exact sum of paise for each id and stores nothing; the import
stores every row durably, and is timed until the command has scored. The sides run in turn, each import into a
new database, which `ledgerd verify` then sums again; a run that fails that is no result. Peak memory is
VmHWM, with nothing else to do. `--rows` and `--people` make a smaller run.
"""

import argparse
import asyncio
import csv
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.quick import LEDGERD_PORT, wait_for
from ledgerd.config import Config
from ledgerd.config_file import load_config
from ledgerd.control import run_command
from ledgerd.sample import write_sample

ROUNDS = 3
SEED = 20_260_101


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the import of a bank history.")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--people", type=int, default=200_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ledgerd-bench-"))
    try:
        history = folder / "history.csv"
        write_sample(history, options.people, SEED, rows_each=options.rows // options.people)
        return run(history, folder)
    finally:
        shutil.rmtree(folder)


def run(history: Path, folder: Path) -> int:
    rounds = []
    for number in range(ROUNDS):
        rows, plain_s = plain_loop(history)
        imported = import_once(history, folder / str(number))
        if imported is None or imported["rows"] != rows:
            print(f"bench: the import is not what the file is: {imported}", file=sys.stderr)
            return 1
        rounds.append({**imported, "plain": rows / plain_s, "import": rows / imported["seconds"]})
    report(rounds)
    return 0


def plain_loop(history: Path) -> tuple[int, float]:
    """Return how many rows the csv module read and summed, and in how many seconds."""
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


def import_once(history: Path, folder: Path) -> dict[str, Any] | None:
    """Import into a new database through its service; None when `verify` finds a difference."""
    folder.mkdir()
    config_path = folder / "config.toml"
    config_path.write_text(f"[server]\nport = {LEDGERD_PORT}\n[log]\nformat = 'json'\n")
    config = load_config(config_path, {})
    command = [sys.executable, "-m", "ledgerd"]
    with (folder / "log").open("wb") as log:
        service = subprocess.Popen([*command, "serve", "--config", str(config_path)], stderr=log)
        try:
            wait_for(LEDGERD_PORT)
            measured = asyncio.run(import_timed(config, history, service.pid))
        finally:
            service.terminate()
            service.wait(30)
    verified = subprocess.run(
        [*command, "verify", "--config", str(config_path)], stdout=subprocess.PIPE, check=False
    )
    print(f"verify: {verified.stdout.decode().strip()}")
    shutil.rmtree(folder)
    return measured if verified.returncode == 0 else None


async def import_timed(config: Config, history: Path, front_pid: int) -> dict[str, Any]:
    """Run the command; return its rows, its seconds, and the peak of each process in MB."""
    assert config.storage.lock_path is not None
    store_pid = int(config.storage.lock_path.read_text().split()[-1])
    importer_mb = 0.0

    def look(*_: int) -> None:
        nonlocal importer_mb
        importer_mb = max([importer_mb, *(peak_mb(pid) for pid in importers(front_pid))])

    started_s = time.perf_counter()
    summary = await run_command(config, "import_transactions", {"path": str(history)}, look)
    return {
        "seconds": time.perf_counter() - started_s,
        "rows": summary["rows_imported"],
        "importer_mb": importer_mb,
        "store_mb": peak_mb(store_pid),
        "front_mb": peak_mb(front_pid),
    }


def importers(front_pid: int) -> list[int]:
    """The importing processes of a service."""
    children = Path(f"/proc/{front_pid}/task/{front_pid}/children").read_text().split()
    return [int(pid) for pid in children if b"import_process" in content(int(pid), "cmdline")]


def peak_mb(pid: int) -> float:
    """The most memory that a process has had; 0 once it is gone."""
    lines = content(pid, "status").decode().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def content(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def report(rounds: list[dict[str, Any]]) -> None:
    """Print medians, and ratios, each from the two sides of one round."""
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {ROUNDS} rounds"
    )
    ratios = [each["import"] / each["plain"] for each in rounds]
    median = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    print(f"plain  {median['plain']:9,.0f} rows/s  {median['rows']:,.0f} rows, nothing stored")
    print(
        f"import {median['import']:9,.0f} rows/s  over plain {statistics.median(ratios):.2f}"
        f" ({min(ratios):.2f}..{max(ratios):.2f})"
    )
    peaks = {
        name: round(max(each[f"{name}_mb"] for each in rounds)) for name in ("importer", "store", "front")
    }
    print(f"peak MB: {json.dumps(peaks)}")


if __name__ == "__main__":
    raise SystemExit(main())
