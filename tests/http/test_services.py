"""What app.py hands to handlers is what they ask for."""

from __future__ import annotations

import inspect

import pytest

from ledgerd.http.services import BillingRuns, Scorer
from ledgerd.scheduler.billing import Billing
from ledgerd.scheduler.scoring import Scoring


@pytest.mark.parametrize(("asked", "given"), [(BillingRuns, Billing), (Scorer, Scoring)])
def test_the_scheduler_is_as_http_sees_it(asked, given):
    """http and scheduler don't import each other: only a type checker and this test see both."""
    names = [name for name in vars(asked) if not name.startswith("_")]
    assert names
    for name in names:
        ours, theirs = getattr(asked, name), getattr(given, name)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)


async def test_a_service_that_is_open_is_ready(world):
    services = world.service.services
    assert (services.ready, services.draining) == (True, False)
    assert services.clock.today() == world.today.toordinal()
    await world.service.drain()
    assert services.draining


async def test_who_waits_to_hear_it_is_told_of_draining(world):
    services, told = world.service.services, []

    def hear():
        told.append(services.draining)
        services.at_drain.discard(hear)

    services.at_drain.add(hear)
    services.drain()
    services.drain()
    assert told == [True]
