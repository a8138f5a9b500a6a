"""Killed in the windows that matter most, once each; `make torture` opens all of them over and over."""

from __future__ import annotations

from pathlib import Path
from random import Random

import aiohttp
import pytest

from tests.crash.load import Payment, api, new_client, new_loans
from tests.crash.rounds import Crashes, planted
from tests.process import Service, serving, write_config

GROUPS = (
    ("journal-before-commit", "in-billing", "before-the-reply"),
    ("journal-after-commit", "tables-before-commit", "in-recovery"),
)


@pytest.mark.parametrize("windows", GROUPS)
async def test_a_kill_in_any_window_loses_nothing_and_doubles_nothing(
    tmp_path: Path, windows: tuple[str, ...]
):
    crashes = Crashes(tmp_path, Random(1))
    await crashes.open()
    for window in windows:
        await crashes.killed_in_window(window)
        await crashes.reckon()
    await crashes.verify()
    assert crashes.books.counts["acknowledged"] > 0
    assert crashes.books.counts["lost"] == crashes.books.counts["doubled"] == 0


async def test_payments_killed_between_their_commit_and_their_answer_are_replayed(tmp_path: Path):
    """A payment is the second commit of the journal in a life: the first is of its epoch."""
    config_path = write_config(tmp_path / "db")
    with serving(config_path) as service:
        token = await new_client(service, "payments:write", "ops")
        [loan_id] = await new_loans(service, 1)
    windows = {"a": "journal-after-commit 2", "b": "before-the-answer 1"}
    payments = [Payment(transaction_id, loan_id, "1.00") for transaction_id in windows]
    for payment in payments:
        mark = tmp_path / payment.transaction_id
        environment = planted(CRASH_AT=windows[payment.transaction_id], CRASH_MARK=str(mark))
        service = Service(config_path, **environment)
        try:
            async with api(service, token) as caller:
                assert not mark.exists()
                with pytest.raises((aiohttp.ClientError, ConnectionError)):
                    await caller.pay(payment)
            await service.until_ended()
        finally:
            service.kill()
        assert mark.exists()
    with serving(config_path) as service:
        async with api(service, token) as caller:
            for payment in payments:
                found, receipt = await caller.get(f"/api/payments/{payment.transaction_id}/")
                status, answer = await caller.pay(payment)
                assert (found, status, answer) == (200, 200, receipt | {"replayed": True})
            assert (await caller.get(f"/api/loans/{loan_id}/"))[1]["principal_received"] == "2.00"
