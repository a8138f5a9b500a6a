"""The payments of one call, from the inside: what is held, what stops, what is shown. What callers see is in
test_batches.py.
"""

from __future__ import annotations

import json

import pytest

from ledgerd.http.in_order import CHUNK, WINDOW, InOrder
from ledgerd.http.problems import Problem
from ledgerd.http.routes import ROUTES
from ledgerd.http.tokens import Caller
from tests.http.edge import next_turns
from tests.http.test_express import payment

[ROUTE] = [route for route in ROUTES if route.batch]


@pytest.fixture
def payments(world):
    """A call of the world's payer."""
    services = world.service.services
    caller = services.accounts.recognise(world.payer.token)
    assert isinstance(caller, Caller)
    return InOrder(services, ROUTE, caller, "id")


def lines(loan, count):
    return [json.dumps(payment(loan, f"t{number}", "0.01")).encode() for number in range(count)]


async def shown(payments):
    return [json.loads(line) async for results in payments.results() for line in results]


async def test_no_more_is_put_than_is_shown_on(payments, loan):
    payments.feed(payments.put(map(payments.read, lines(loan, WINDOW + 500))))
    results = payments.results()
    first = await anext(results)
    assert 1 <= len(first) <= CHUNK
    while payments._roomy.is_set() or len(payments._slots) < WINDOW:
        await next_turns()
    assert len(payments._slots) == WINDOW
    assert not payments._feeding.done()
    rest = [line async for each in results for line in each]
    names = [json.loads(line)["transaction_id"] for line in first + rest]
    assert names == [f"t{number}" for number in range(WINDOW + 500)]
    assert payments.stopped_by is None


async def test_stopping_shows_what_was_put(payments, loan):
    payments.feed(payments.put(map(payments.read, lines(loan, WINDOW + 500))))
    while len(payments._slots) < CHUNK:
        await next_turns()
    why = Problem("draining", "Stopping.")
    payments.stop(why)
    results = await shown(payments)
    assert {result["status"] for result in results} == {201}
    assert CHUNK <= len(results) < WINDOW + 500
    assert payments.stopped_by is why


async def test_what_waits_for_room_when_it_is_stopped_was_not_done(world, payments, loan, monkeypatch):
    registry = world.service.registry
    monkeypatch.setattr(registry, "in_flight", registry.limits.in_flight)
    payments.feed(payments.put(map(payments.read, lines(loan, 3))))
    while not payments._slots:
        await next_turns()
    payments.stop(Problem("draining", "Stopping."))
    assert await shown(payments) == []
    monkeypatch.undo()
    assert registry.in_flight == 0


async def test_an_end_of_the_source_that_is_an_error_is_why_it_stopped(payments, loan):
    async def source():
        await payments.put(map(payments.read, lines(loan, 3)))
        raise ZeroDivisionError("a bug")

    payments.feed(source())
    assert len(await shown(payments)) == 3
    assert isinstance(payments.stopped_by, ZeroDivisionError)


async def test_a_bug_in_reading_is_the_payment_s_own_500(world, payments, loan, monkeypatch):
    world.errors_allowed = True
    good = lines(loan, 2)
    with monkeypatch.context() as broken:
        broken.setattr("ledgerd.http.in_order.order", None)
        slot = payments.read(good[0])
    payments.feed(payments.put([slot, payments.read(good[1])]))
    assert [result["status"] for result in await shown(payments)] == [500, 201]
