"""`make bench-billing`: how fast a book of due loans is billed, and what payments feel of it.

`python -m bench.billing [--loans 1000000]` lends the loans in bulk, outside the measure, so that one half
falls due a day after the other. The first half is billed through the running service while nobody pays, the
second while eight connections pay loans that are not due, without a pause; the same eight pay for some
seconds before. Reported are loans and seconds of both runs, the payments' p50 and p99 before and meanwhile,
and the most memory that front and store ever held (VmHWM). Afterwards `ledgerd verify` recomputes every
figure; a run that left a loan out, or that verify speaks against, is no result. The client shares the
machine.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import date
from pathlib import Path

import aiohttp
import uvloop

from bench.quick import wait_for
from ledgerd.app import Service, open_service
from ledgerd.clock import SandboxClock
from ledgerd.config import Config
from ledgerd.config_file import load_config
from ledgerd.control import run_command
from ledgerd.domain.calendar import format_day
from ledgerd.domain.commands import Disburse
from ledgerd.domain.events import Terms
from ledgerd.http.clients import ClientCredentials
from ledgerd.ids import format_id
from ledgerd.observe import configure_logging

PORT = 18_284
START = date(2026, 1, 1)
CONNECTIONS = 8
PAYERS = 1_000
IDLE_S = 5
LENT_AT_ONCE = 1_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.billing")
    parser.add_argument("--loans", type=int, default=1_000_000)
    loans = parser.parse_args().loans
    folder = Path(tempfile.mkdtemp(prefix="ledgerd-bench-"))
    try:
        return run(folder, loans)
    finally:
        shutil.rmtree(folder)


def run(folder: Path, loans: int) -> int:
    config_path = folder / "config.toml"
    config_path.write_text(
        f"[server]\nport = {PORT}\n[auth]\naccess_ttl_s = 86400\n[log]\nformat = 'json'\n"
        f"[clock]\nsandbox_start = '{START}'\n"
    )
    config = load_config(config_path, {})
    configure_logging("json", "warning")
    token, payers = uvloop.run(prepare(config, loans))
    command = [sys.executable, "-m", "ledgerd"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*command, "serve", "--config", str(config_path)], stderr=log)
        try:
            wait_for(PORT)
            measured = uvloop.run(measure(config, token, payers))
            assert config.storage.lock_path is not None
            store = int(config.storage.lock_path.read_text().split()[-1])
            peaks_mb = [peak_mb(server.pid), peak_mb(store)]
        finally:
            server.terminate()
            server.wait(60)
    verified = subprocess.run(
        [*command, "verify", "--config", str(config_path)], stdout=subprocess.PIPE, check=False
    )
    report(measured, peaks_mb, verified.stdout.decode().strip())
    billed = sum(each["billed"] for each in measured["runs"])
    return 0 if verified.returncode == 0 and billed == loans else 1


async def prepare(config: Config, loans: int) -> tuple[str, list[str]]:
    """Make the book on the days on which it is lent, and leave it on the day when both halves are due. Return
    a token that pays, and the loans that are not due.
    """
    service = await open_service(config)
    try:
        made = await service.services.accounts.create_client("bench", ["payments:write"])
        assert isinstance(made, ClientCredentials)
        token = service.services.tokens.issue(made.client_id, "client", ("payments:write",), 1, "bench")
        borrower_id = service.services.ids.new()
        person = ("Bench", "bench@example.com", "bench@example.com", 0, "", 0, bytes(16), b"", "0000")
        await service.store.write("register_user", borrower_id, *person)
        clock = service.services.clock
        assert isinstance(clock, SandboxClock)
        first_day = clock.today()
        lent: list[str] = []
        for later, count in enumerate((loans // 2, loans - loans // 2, PAYERS)):
            clock.set(first_day + later)
            lent = await lend(service, borrower_id, count)
        day, now_ms = first_day + 31, clock.now_ms()
        await service.store.write("save_clock", "sandbox", day)
        # As if that day's run had been: else the start would bill the book before it can be measured.
        await service.store.write("begin_run", 1, day, now_ms)
        await service.store.write("save_run", 1, 0, 0, 0, [], "completed", now_ms)
    finally:
        await service.close()
    return token, lent


async def lend(service: Service, borrower_id: int, count: int) -> list[str]:
    """Lend through the actors and the journal; return the loans' ids."""
    ids, registry = service.services.ids, service.registry
    terms = Terms(10**11, 1400, 38, 120, "min_due", 0, 30, 15, 300)
    command = Disburse(borrower_id, terms, service.services.clock.now_ms())
    loan_ids = [ids.new() for _ in range(count)]
    for start in range(0, count, LENT_AT_ONCE):
        some = loan_ids[start : start + LENT_AT_ONCE]
        await asyncio.gather(*(registry.ask(loan_id, command, new=True) for loan_id in some))
        if registry.committer.lag_events > 50_000:
            await service.store.project_through(registry.committer.head_seq)
    await service.store.project_through(registry.committer.head_seq)
    return [format_id(loan_id) for loan_id in loan_ids]


async def measure(config: Config, token: str, payers: list[str]) -> dict[str, list[dict[str, float]]]:
    """Pay, bill, and do both; see the module."""
    stop = asyncio.Event()
    paying = asyncio.ensure_future(pay(token, payers, "idle", stop))
    await asyncio.sleep(IDLE_S)
    stop.set()
    idle = await paying
    alone = await bill(config, format_day(START.toordinal() + 30))
    stop.clear()
    paying = asyncio.ensure_future(pay(token, payers, "meanwhile", stop))
    meanwhile = await bill(config, None)
    stop.set()
    return {"runs": [alone, meanwhile], "payments": [idle, await paying]}


async def bill(config: Config, through: str | None) -> dict[str, float]:
    """Run `ledgerd bill` through the service."""
    shown = await run_command(config, "bill", {"date": through}, lambda *_: None)
    return {name: shown[name] for name in ("billed", "failed", "seconds")}


async def pay(token: str, payers: list[str], run_name: str, stop: asyncio.Event) -> dict[str, float]:
    """Pay over CONNECTIONS connections, each as fast as it is answered, until told to stop."""
    took_s: list[float] = []
    refused = 0

    async def one(session: aiohttp.ClientSession, connection: int) -> None:
        nonlocal refused
        number = 0
        while not stop.is_set():
            number += 1
            transaction_id = f"{run_name}-{connection}-{number}"
            loan_id = payers[(number * CONNECTIONS + connection) % len(payers)]
            body = {"loan_id": loan_id, "amount": "1.00", "transaction_id": transaction_id}
            started_s = time.perf_counter()
            async with session.post("/api/make-payment/", json=body) as response:
                await response.read()
            took_s.append(time.perf_counter() - started_s)
            refused += response.status != 201

    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{PORT}", headers=headers) as session:
        started_s = time.perf_counter()
        await asyncio.gather(*(one(session, connection) for connection in range(CONNECTIONS)))
        seconds = time.perf_counter() - started_s
    took_s.sort()
    at = {name: took_s[int(len(took_s) * share)] * 1000 for name, share in (("p50", 0.5), ("p99", 0.99))}
    return {"rate": len(took_s) / seconds, "refused": refused, **at}


def peak_mb(pid: int) -> float:
    """Return the most memory that a process has held."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return float("nan")


def report(measured: dict[str, list[dict[str, float]]], peaks_mb: list[float], verified: str) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name, each in zip(("billed alone", "billed while paid"), measured["runs"], strict=True):
        rate = each["billed"] / each["seconds"]
        print(
            f"{name:18} {each['billed']:9.0f} loans in {each['seconds']:7.1f} s = {rate:7.0f} loans/s"
            f"  failed {each['failed']:.0f}"
        )
    for name, each in zip(("payments idle", "payments meanwhile"), measured["payments"], strict=True):
        print(
            f"{name:18} {each['rate']:9.0f} payments/s  p50 {each['p50']:6.1f} ms  p99 {each['p99']:6.1f} ms"
            f"  refused {each['refused']:.0f}"
        )
    print(f"peak memory        front {peaks_mb[0]:.0f} MB, store {peaks_mb[1]:.0f} MB")
    print(f"verify: {json.dumps(json.loads(verified))}")


if __name__ == "__main__":
    raise SystemExit(main())
