from __future__ import annotations

import json

import pytest

from ledgerd.http.console.live import Live, Sample, between, quantile
from ledgerd.metrics import LATENCY_BUCKETS_S, Counted
from tests.http.console.visitor import ops_visitor

NONE = (0,) * (len(LATENCY_BUCKETS_S) + 1)


def buckets(**counts: int) -> tuple[int, ...]:
    """So many in each of these buckets, by place."""
    found = list(NONE)
    for place, count in counts.items():
        found[int(place[1:])] = count
    return tuple(found)


def sample(at_s: float, requests=NONE, commits=NONE, entries=0, **payments: int) -> Sample:
    return Sample(at_s, Counted(payments, requests, commits, entries), 3, 2, 5, 7)


def test_rates_are_the_difference_over_its_seconds():
    found = between(
        sample(100.0, applied=50, overloaded=1),
        sample(110.0, buckets(_1=10), buckets(_2=5), 40, applied=70, replayed=5, overloaded=11),
    )
    assert (found.payments_per_s, found.refused_per_s) == (2.5, 1.0)
    assert (found.commits_per_s, found.entries_per_commit) == (0.5, 8.0)
    assert (found.in_flight, found.mailbox_deepest, found.resident_loans, found.lag_events) == (3, 2, 5, 7)


def test_where_nothing_was_timed_there_is_no_time():
    found = between(sample(100.0), sample(102.0))
    assert (found.request_p50_s, found.request_p99_s, found.commit_p99_s) == (None, None, None)
    assert found.entries_per_commit is None
    assert found.payments_per_s == 0


def test_a_clock_that_steps_back_divides_by_no_zero():
    assert between(sample(100.0), sample(99.0, applied=1)).payments_per_s == 1000


@pytest.mark.parametrize(
    ("in_bucket", "share", "bound_s"),
    [
        (buckets(_0=100), 0.5, 0.00025),
        (buckets(_0=100), 1.0, 0.0005),
        (buckets(_0=99, _5=1), 0.99, 0.0005),
        (buckets(_0=98, _5=2), 0.99, 0.00625),
        (buckets(_20=1), 0.99, 10.0),
    ],
)
def test_a_quantile_lies_within_its_bucket(in_bucket, share, bound_s):
    assert quantile(in_bucket, share) == pytest.approx(bound_s)


def test_samples_are_compared_over_ten_seconds_and_the_oldest_go():
    live = Live()
    assert live.figures() == []
    for number in range(460):
        live.samples.append(sample(2.0 * number, applied=number * number))
    assert len(live.samples) == 450
    figures = live.figures()
    assert len(figures) == 449
    assert figures[-1].payments_per_s == (459**2 - 454**2) / 10


async def test_the_page_shows_what_was_counted(world, loan):
    visitor = await ops_visitor(world)
    [live] = lives(world)
    live.samples.clear()
    assert "The first figures come in a moment." in (await visitor.get("/console/live/")).text
    live.look(world.service.services)
    for _ in range(20):
        await world.pay(world.payer, loan, "1.00")
    await world.pay(world.payer, loan, "90000.00")
    world.time.now_s += 2
    live.look(world.service.services)
    page = await visitor.get("/console/live/")
    assert page.figure("Payments") == "10.0 a second"
    assert page.figure("Refused") == "0.5 a second"
    assert page.figure("Loans in memory") == "1"
    assert page.figure("Tables behind by").endswith(" events")
    assert page.figure("Answer, p99").endswith(" ms")
    assert page.figure("Commit batch").endswith(" decisions")
    [rates, times] = [json.loads(element["data-plot"]) for element in page.html.select("[data-plot]")]
    assert [series["label"] for series in rates["series"]] == ["Payments", "Refused"]
    assert rates["series"][0]["values"] == [10.0]
    assert len(times["x"]) == 1


async def test_its_part_is_fetched_again_and_again(world):
    visitor = await ops_visitor(world)
    page = await visitor.get("/console/live/")
    part = page.html.select_one("#live")
    assert part["hx-get"] == "/console/live/figures/"
    fetched = await visitor.get(part["hx-get"], **{"HX-Request": "true"})
    assert fetched.status == 200
    assert not fetched.html.select("html, main")


async def test_it_looks_by_itself(world):
    [live] = lives(world)
    assert live.samples


def lives(world) -> list[Live]:
    """The Live of the application: one."""
    handlers = {
        route.handler.__self__._parts.live
        for route in world.client.app.router.routes()
        if hasattr(getattr(route.handler, "__self__", None), "_parts")
    }
    return list(handlers)
