"""The demo: one borrower's whole life over HTTP, step by step, each figure checked as it is shown.

`ledgerd demo` (make run) stays up afterwards to be tried; `ledgerd demo --exit` (make demo) ends.
"""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from typing import Any, Final

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector
from rich.console import Console
from rich.rule import Rule

from ledgerd.config import Server
from ledgerd.control import CommandFailed
from ledgerd.demo.stage import PATIENCE_S, DiffersError, Sandbox, Stage
from ledgerd.demo.steps import AADHAAR, ADVANCE, BALANCE_PAISE, CLIENTS, EMAIL, PASSWORD, PAY, STEPS

COLUMNS_PIPED: Final = 100


async def walk(stay: bool, server: Server) -> int:
    """Walk all steps and return the exit code: 0, or 1 when a step differed. With `stay`, serve until Ctrl-C.

    `server` says where to listen; a port that is taken is replaced by a free one.
    """
    width = None if sys.stdout.isatty() else COLUMNS_PIPED
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if not stay:
        server = msgspec.structs.replace(server, port=0)
    sandbox = Sandbox(server)
    try:
        await asyncio.to_thread(sandbox.write_bank_history, {AADHAAR: BALANCE_PAISE})
        async with ClientSession(
            connector=TCPConnector(limit=0), timeout=ClientTimeout(total=PATIENCE_S)
        ) as session:
            stage = Stage(sandbox, session, console)
            walking = loop.create_task(_take_steps(stage))
            stopping = loop.create_task(stop.wait())
            await asyncio.wait([walking, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not walking.done():
                walking.cancel()
                await asyncio.gather(walking, return_exceptions=True)
                console.print("stopped before the end")
                return 1
            code = walking.result()
            return await _stay(stage, stopping) if stay and code == 0 else code
    finally:
        await sandbox.close()


async def _take_steps(stage: Stage) -> int:
    console, step = stage.console, "Starting"
    try:
        await stage.restart()
        console.print(f"ledgerd listens on {stage.sandbox.url}, in {stage.sandbox.folder}")
        for number, take in enumerate(STEPS, 1):
            step = f"{number}. {(take.__doc__ or '').strip()}"
            console.print()
            console.print(Rule(step, align="left", style="dim"))
            await take(stage)
    except (DiffersError, CommandFailed, ClientError, TimeoutError, OSError) as error:
        console.print(
            f"\nIt did not go as it should. {step}: {str(error) or 'it took too long'}", style="bold red"
        )
        return 1
    console.print("\nAll went as it should.", style="bold green")
    return 0


async def _stay(stage: Stage, stopping: asyncio.Task[Any]) -> int:
    """Lend once more, say how to try things, and serve until Ctrl-C."""
    console = stage.console
    terms = {"amount": "3000", "interest_rate": "12", "tenure": 6}
    _, _, loan = await stage.send("POST", "/api/apply-loan/", terms, "asha")
    values = {"URL": stage.sandbox.url, "LOAN": loan["loan_id"], "JSON": "Content-Type: application/json"}
    values |= {name.upper(): f"Authorization: Bearer {stage.tokens[name]}" for name in ("asha", *CLIENTS)}
    await asyncio.to_thread(stage.sandbox.write_environment, values)
    console.print()
    console.print(Rule("Now you", align="left", style="dim"))
    console.print(
        f"The service stays up. API pages: {stage.sandbox.url}/docs, log: service.log in its directory"
    )
    console.print(f"Asha ({EMAIL}, password {PASSWORD!r}) has a new loan, {values['LOAN']}.", soft_wrap=True)
    for name, made in stage.credentials.items():
        console.print(f"Client {name}: {made['client_id']} {made['client_secret']}", soft_wrap=True)
    console.print(f"The console: {stage.sandbox.url}/console/, where Asha and the client ops log in.")
    console.print("Their tokens, good for a day, are in a file. In another terminal:\n")
    payment = """'{"loan_id": "'$LOAN'", "amount": "500", "transaction_id": "mine-1"}'"""
    for line in (
        f". {shlex.quote(str(stage.sandbox.environment_path))}",
        'curl -s $URL/api/loans/$LOAN/ -H "$ASHA"',
        f'curl -s $URL{PAY} -H "$BANK" -H "$JSON" -d {payment}',
        f'curl -s $URL{ADVANCE} -H "$OPS" -H "$JSON" -d \'{{"days": 30}}\'',
        'curl -s "$URL/api/get-statement/?loan_id=$LOAN" -H "$ASHA"',
    ):
        console.print(f"  {line}", soft_wrap=True)
    console.print("\nCtrl-C ends it and removes its directory.")
    ended = asyncio.get_running_loop().create_task(stage.sandbox.ended())
    await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
    if stopping.done():
        ended.cancel()
        return 0
    console.print(f"The service has ended: {stage.sandbox.last_words()}", style="bold red")
    return 1
