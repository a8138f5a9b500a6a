"""A backup of the real service under load, checked and restored by the commands that docs/backup.md gives."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from random import Random

from tests.crash.load import Load, api, check, open_books
from tests.process import ledgerd, ledgerd_here, serving, write_config


async def test_a_backup_under_load_has_all_that_was_acknowledged_before_and_serves(tmp_path: Path):
    config_path = write_config(tmp_path / "home")
    second = tmp_path / "second"
    with serving(config_path) as service:
        books = await open_books(service, loans=3)
        before: dict[str, object] = {}
        going = asyncio.Event()

        def on_answer(answers: int) -> None:
            if answers == 300:
                going.set()
            load.stopping = load.stopping or answers > 5_000

        load = Load(books, Random(1), on_answer)
        loading = asyncio.create_task(load.run(service, clients=16))
        await asyncio.wait_for(going.wait(), 60)
        before = {each.transaction_id: each.receipt for each in books.open.values() if each.receipt}
        backup = await asyncio.to_thread(ledgerd, "backup", second, "--config", config_path)
        load.stopping = True
        await asyncio.wait_for(loading, 60)
        assert backup.code == 0, backup
        await check(books, service)
    verified = ledgerd_here(
        "verify", "--config", config_path, LEDGERD_STORAGE_URL=f"sqlite:///{second / 'ledgerd.db'}"
    )
    assert verified.code == 0, verified
    home, away = config_path.parent, tmp_path / "away"
    away.mkdir()
    for path in home.glob("ledgerd.*db*"):
        shutil.move(path, away / path.name)
    for path in second.iterdir():
        shutil.copy(path, home / path.name)
    assert ledgerd_here("verify", "--config", config_path).code == 0
    with serving(config_path) as service:
        async with api(service, books.token) as caller:
            for transaction_id, receipt in before.items():
                status, found = await caller.get(f"/api/payments/{transaction_id}/")
                assert (status, found) == (200, receipt)
            # A gateway sends again what it has: all of it counts once.
            for payment in list(books.settled.values())[:100]:
                if payment.receipt is not None:
                    status, answer = await caller.pay(payment)
                    assert status == (200 if payment.transaction_id in before else status)
                    assert status in {200, 201}
                    assert answer["amount"] == payment.receipt["amount"]
    assert ledgerd_here("verify", "--config", config_path).code == 0
