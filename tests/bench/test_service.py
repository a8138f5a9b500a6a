"""A service that a load runs against: counted, killed, started again, verified."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from bench import client
from bench.service import NotAResult, Service, begin_verify, end_verify, keys_after, last_seq
from bench.stage import Stage
from ledgerd.domain.commands import payment_key


def pay(service: Service, name: str, count: int) -> list[str]:
    """Make payments; return the transaction ids of those acknowledged."""
    acknowledged = []

    def note(request: bytes, status: int, _body: bytes) -> None:
        assert status == 201
        acknowledged.append(request.rpartition(b'"transaction_id":"')[2].partition(b'"')[0].decode())

    some = list(itertools.islice(client.payments(service.loans, service.tokens(3), name), count))
    asyncio.run(client.Load(some, note).run(service.port, 2))
    return acknowledged


def test_an_audit_counts_what_was_acknowledged_and_what_came_into_the_ledger(stage: Stage):
    with stage.serve("payments") as service:
        pay(service, "before", 2)
        with service.audit("B1") as audit:
            pay(service, "within", 7)
        check = audit.check()
    assert (check.acknowledged, check.in_ledger) == (7, 7)
    assert not check.ok  # until verify has passed
    verified, said = end_verify(begin_verify(service.folder))
    assert verified
    assert "differences 0" in said


def test_what_was_acknowledged_before_a_kill_is_there_after_the_next_start(stage: Stage):
    folder = stage.ledger("payments")
    service = Service(folder, {})
    service.start()
    service.wait_ready()
    after_seq = last_seq(service.config)
    acknowledged = pay(service, "killed", 5)
    service.kill()
    service.start()
    service.wait_ready()
    service.stop()
    keys = keys_after(service.config, after_seq)
    assert {payment_key(service.book.caller, each) for each in acknowledged} == keys


def test_a_service_that_can_t_start_is_no_result(stage: Stage):
    folder = stage.ledger("payments")
    service = Service(folder, {})
    (folder / "config.toml").write_text("[server]\nport = 'none'\n")
    service.start()
    with pytest.raises(NotAResult, match="port"):
        service.wait_ready()
