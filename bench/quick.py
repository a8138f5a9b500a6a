"""`make bench-quick`: single payments over 10,000 loans and on one, over a bare aiohttp handler, in one run.

The sides run in turn, three rounds, 64 connections (wrk, Debian's package), with durability, tokens,
validation, metrics and the access log on. Afterwards `ledgerd verify` recomputes every figure, and the
payments in the ledger are counted against those acknowledged; a run that fails either is no result. The
generator shares the machine, so ratios count and rates don't.
"""

import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import msgspec
import uvloop

from ledgerd.app import Service, open_service
from ledgerd.config import Config
from ledgerd.config_file import load_config
from ledgerd.domain.commands import Disburse
from ledgerd.domain.events import Terms
from ledgerd.http.clients import ClientCredentials
from ledgerd.ids import format_id
from ledgerd.observe import configure_logging

LOANS = 10_000
TOKENS = 1_000
ROUNDS = 3
SECONDS = 6
CONNECTIONS = 64
BARE_PORT, LEDGERD_PORT = 18_283, 18_282


def main() -> int:
    wrk = shutil.which("wrk")
    if wrk is None:
        print("bench: wrk is needed: install Debian's package of that name", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="ledgerd-bench-"))
    try:
        return run(wrk, folder)
    finally:
        shutil.rmtree(folder)


def run(wrk: str, folder: Path) -> int:
    config_path = folder / "config.toml"
    config_path.write_text(
        f"[server]\nport = {LEDGERD_PORT}\n[auth]\naccess_ttl_s = 86400\n[log]\nformat = 'json'\n"
    )
    config = load_config(config_path, {})
    configure_logging("json", "warning")
    uvloop.run(prepare(config, folder))
    commands = {
        "bare": [sys.executable, "-m", "bench.peers.bare", str(BARE_PORT)],
        "ledgerd": [sys.executable, "-m", "ledgerd", "serve", "--config", str(config_path)],
    }
    ports = {"bare": BARE_PORT, "ledgerd": LEDGERD_PORT}
    results: dict[str, list[dict[str, float]]] = {"bare": [], "wide": [], "hot": []}
    with (folder / "log").open("wb") as log:
        servers = [subprocess.Popen(command, stderr=log) for command in commands.values()]
        try:
            for port in ports.values():
                wait_for(port)
            load(wrk, folder, LEDGERD_PORT, 2, LOANS)  # every loan is read into memory once
            for _ in range(ROUNDS):
                results["bare"].append(load(wrk, folder, BARE_PORT, SECONDS, LOANS))
                results["wide"].append(load(wrk, folder, LEDGERD_PORT, SECONDS, LOANS))
                results["hot"].append(load(wrk, folder, LEDGERD_PORT, SECONDS, 1))
            answered = count_answers(LEDGERD_PORT)
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait(30)
    verified = subprocess.run(
        [sys.executable, "-m", "ledgerd", "verify", "--config", str(config_path)],
        stdout=subprocess.PIPE,
        check=False,
    )
    summary = json.loads(verified.stdout)
    report(results, summary, answered)
    return 0 if verified.returncode == 0 and summary["payments"] == answered else 1


async def prepare(config: Config, folder: Path) -> None:
    """Make a client, its tokens, one borrower and the loans, through the actors and the journal."""
    service = await open_service(config)
    try:
        made = await service.services.accounts.create_client("bench", ["payments:write"])
        assert isinstance(made, ClientCredentials)
        tokens = [
            service.services.tokens.issue(
                made.client_id, "client", ("payments:write",), number + 1, f"bench-{number}"
            )
            for number in range(TOKENS)
        ]
        loans = await disburse(service)
        await service.store.project_through(LOANS)
    finally:
        await service.close()
    listed = {
        name: ",".join(f'"{text}"' for text in texts)
        for name, texts in (("loans", loans), ("tokens", tokens))
    }
    (folder / "load.lua").write_text(
        f"return {{loans = {{{listed['loans']}}}, tokens = {{{listed['tokens']}}}}}"
    )


async def disburse(service: Service) -> list[str]:
    clock, ids = service.services.clock, service.services.ids
    borrower_id = ids.new()
    await service.store.write(
        "register_user",
        borrower_id,
        "Bench",
        "bench@example.com",
        "bench@example.com",
        0,
        "",
        0,
        bytes(16),
        b"",
        "0000",
    )
    terms = Terms(10**11, 1400, 38, 120, "min_due", clock.today(), 30, 15, 300)
    loans = [ids.new() for _ in range(LOANS)]
    for start in range(0, LOANS, 1_000):
        some = loans[start : start + 1_000]
        command = Disburse(borrower_id, terms, clock.now_ms())
        await asyncio.gather(*(service.registry.ask(loan_id, command, new=True) for loan_id in some))
    return [format_id(loan_id) for loan_id in loans]


def wait_for(port: int) -> None:
    """Wait until something answers on the port."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
        except urllib.error.HTTPError:
            return  # the bare handler knows no such address
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"nothing listens on {port}")


def load(wrk: str, folder: Path, port: int, seconds: int, loans: int) -> dict[str, float]:
    """Run wrk once and return what it counted."""
    environ = {**os.environ, "LEDGERD_LOAD": str(folder / "load.lua"), "LEDGERD_LOANS": str(loans)}
    script = Path(__file__).with_name("pay.lua")
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}"]
    printed = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True, text=True).stdout
    line = next(line for line in printed.splitlines() if line.startswith("LEDGERD "))
    counted: dict[str, float] = json.loads(line.removeprefix("LEDGERD "))
    counted["rate"] = counted["requests"] / counted["seconds"]
    return counted


def count_answers(port: int) -> int:
    """Return how many payments the service answered with 201, those that wrk hung up on included."""
    answered = 'ledgerd_requests_total{route="/api/make-payment/",status="201"}'
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines()]
        values = {line[0]: float(line[1]) for line in lines if line[0][0] != "#"}
        if values["ledgerd_in_flight"] == 0:  # all that was asked for is answered
            return int(values[answered])
        time.sleep(0.1)


def report(results: dict[str, list[dict[str, float]]], summary: dict[str, object], answered: int) -> None:
    """Print medians and ratios, each ratio from the two sides of one round."""
    bare = [each["rate"] for each in results["bare"]]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}, {CONNECTIONS} connections, {ROUNDS} rounds of {SECONDS} s")
    for name, rounds in results.items():
        rate = statistics.median(each["rate"] for each in rounds)
        p99_ms = statistics.median(each["p99_ms"] for each in rounds)
        ratios = [each["rate"] / ceiling for each, ceiling in zip(rounds, bare, strict=True)]
        refused, broken = (sum(each[key] for each in rounds) for key in ("refused", "broken"))
        print(
            f"{name:5} {rate:8.0f} requests/s  over bare {statistics.median(ratios):.2f}"
            f" ({min(ratios):.2f}..{max(ratios):.2f})  p99 {p99_ms:6.1f} ms"
            f"  refused {refused:.0f}  broken {broken:.0f}"
        )
    print(f"answered 201: {answered}; verify: {msgspec.json.encode(summary).decode()}")


if __name__ == "__main__":
    raise SystemExit(main())
