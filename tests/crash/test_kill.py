"""SIGKILL at any moment loses nothing that was acknowledged, and doubles nothing.

CRASH_KILLS and CRASH_SEED in the environment make a longer run, or another one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from random import Random

from ledgerd.domain.money import parse_hundredths, rupees
from tests.crash.load import LENT, Books, Load, Payment, api, check, new_client, new_loans, open_books
from tests.process import Service, ledgerd_here, serving, write_config

KILLS = int(os.environ.get("CRASH_KILLS", "6"))
SEED = int(os.environ.get("CRASH_SEED", "20260101"))
VICTIMS = ("both", "store", "front")


async def test_kills_under_load(tmp_path: Path):
    """Each round starts the service on what the last one left, checks it, and kills under load."""
    config_path = write_config(tmp_path)
    chance = Random(SEED)
    with serving(config_path) as service:
        books = await open_books(service, loans=4)
    for number in range(KILLS):
        victim = VICTIMS[number % len(VICTIMS)]
        with serving(config_path) as service:
            await check(books, service)
            await kill_under_load(service, books, chance, victim)
        sys.stdout.write(f"{number + 1} {victim}: {dict(books.counts)}\n")
    with serving(config_path) as service:
        await check(books, service)
    # Stopped: verify counts the payments in the tables, which follow a running service a moment later.
    verified = await asyncio.to_thread(ledgerd_here, "verify", "--config", config_path)
    assert verified.code == 0, verified
    assert json.loads(verified.stdout)["payments"] == sum(
        payment.receipt is not None for payment in books.settled.values()
    )
    assert books.counts["acknowledged"] > 0
    assert books.counts["lost"] == books.counts["doubled"] == 0


async def kill_under_load(service: Service, books: Books, chance: Random, victim: str) -> None:
    """Kill at the n-th answer; what ends by itself must end, and say so by its exit code."""
    kill_at = chance.randint(1, 400)

    def on_answer(answers: int) -> None:
        if answers == kill_at:
            if victim in ("both", "front"):
                service.signal(signal.SIGKILL)
            if victim in ("both", "store"):
                service.kill_store()

    load = Load(books, chance, on_answer)
    await asyncio.wait_for(load.run(service, clients=16), 60)
    if victim == "front":
        # Its store is not waited for: that ends by itself, and the next start waits for its lock.
        code = service.process.wait()
    else:
        code = await service.until_ended()
    assert code == (1 if victim == "store" else -signal.SIGKILL), service.log[-5:]
    if victim == "store":
        [said] = [line for line in service.log if not line.startswith("{")]
        assert said.startswith("ledgerd: the store ended")


async def test_sixty_equal_and_a_thousand_different_payments_at_once_then_a_kill(tmp_path: Path):
    """On one loan, killed as soon as the last is answered: exact."""
    config_path = write_config(tmp_path)
    with serving(config_path) as service:
        token = await new_client(service, "payments:write", "ops")
        [loan_id] = await new_loans(service, 1)
        books = Books(token, [loan_id])
        same = Payment("same", loan_id, "207.00")
        different = [Payment(f"t-{number}", loan_id, f"{number}.07") for number in range(1, 1001)]
        books.open = {payment.transaction_id: payment for payment in (same, *different)}
        async with api(service, token) as caller:
            answers = await asyncio.gather(*(caller.pay(p) for p in [*[same] * 60, *different]))
        service.kill()
    statuses = [status for status, _ in answers]
    assert sorted(statuses[:60]) == [200] * 59 + [201]
    assert set(statuses[60:]) == {201}
    for payment, (status, answer) in zip([*[same] * 60, *different], answers, strict=True):
        payment.note(status, answer)
    paid_paise = 207_00 + sum(number * 100 + 7 for number in range(1, 1001))
    with serving(config_path) as service:
        async with api(service, token) as caller:
            _, loan = await caller.get(f"/api/loans/{loan_id}/")
        await check(books, service)
        verified = await asyncio.to_thread(ledgerd_here, "verify", "--config", config_path)
    assert verified.code == 0, verified
    assert books.counts["acknowledged"] == 1001
    assert loan["payoff"] == rupees(
        (parse_hundredths(LENT) or 0) - paid_paise
    )  # on the first day: no interest yet
