"""Batches against a real service: what is applied is what is in the ledger."""

from __future__ import annotations

import asyncio

import pytest

from bench import client
from bench.scenarios import batches
from bench.stage import Stage


@pytest.mark.parametrize("send", [batches.arrays, batches.stream])
def test_what_was_applied_is_in_the_ledger(stage: Stage, send: batches.Send):
    with stage.serve("payments") as service:
        made = client.batch(service.loans, f"test-{send.__name__}", 3_000)
        with service.audit("B3") as audit:
            sent = asyncio.run(send(service, made, 60.0))
            audit.acknowledged += sent.applied
    assert sent.sent == sent.applied == 3_000
    assert audit.check().in_ledger == 3_000
