"""The metrics: served as they are documented, and counted right on the ways that hot paths take."""

from __future__ import annotations

import os
import random
import re
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from ledgerd.metrics import (
    FOLD_TRACES,
    PAYMENT_ROUTE,
    PHASE_BUCKETS_S,
    PHASES,
    UNTRACED,
    Distribution,
    Distributions,
    Metrics,
    Trace,
)

DOCUMENT = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text(encoding="utf-8")
STAMPS = ["started_s", "authenticated_s", "parsed_s", "received_s", "decided_s", "durable_s"]


def served(metrics: Metrics) -> dict[str, Metric]:
    """What is served, by the name that a query uses."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {f"{family.name}{'_total' * (family.type == 'counter')}": family for family in families}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    metrics.render()
    return metrics.registry.get_sample_value(name, labels)


def traced(*stamps: float) -> Trace:
    """A trace that came so far."""
    trace = Trace(stamps[0])
    for name, stamp in zip(STAMPS, stamps, strict=False):
        setattr(trace, name, stamp)
    return trace


def phases(metrics: Metrics) -> dict[str, float]:
    """The sums of the phases that were observed."""
    name = "ledgerd_payment_phase_seconds"
    return {
        phase: value(metrics, f"{name}_sum", phase=phase)
        for phase in PHASES
        if value(metrics, f"{name}_count", phase=phase)
    }


# The list ----------------------------------------------------------------------------------------


def test_what_is_served_is_documented_and_what_is_documented_is_served():
    documented = {}
    for line in DOCUMENT.splitlines():
        cells = re.split(r"\s*\|\s*", line)[1:-1]
        if line.startswith("| `") and len(cells) == 4:
            names, kind, labels, meaning = cells
            assert meaning, line
            for name in re.findall(r"`(\w+)`", names):
                documented[name] = (kind, set(re.findall(r"`(\w+)`", labels)))
    metrics = Metrics()
    metrics.watch_store(os.getpid)
    metrics.observe_request("/livez", 200, 0.001)
    metrics.payments.counts["applied"] += 1
    metrics.passivations.counts["idle"] += 1
    metrics.overloaded.counts["mailbox"] += 1
    found = served(metrics)
    if sys.platform != "linux":
        documented = {name: row for name, row in documented.items() if "process_" not in name}
    shown = {
        name: (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
        for name, family in found.items()
        if not name.endswith("_created")
    }
    assert shown == documented
    assert all(family.documentation for family in found.values())


def test_the_phases_are_documented():
    table = DOCUMENT.split("\n## Phases of a payment\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(PHASES)
    [family] = [family for name, family in served(Metrics()).items() if "phase" in name]
    assert all(f"{phase}: " in family.documentation for phase in PHASES)


def test_metrics_have_their_own_registry():
    one, other = Metrics(), Metrics()
    one.observe_request("/api/loans/", 200, 0.004)
    one.observe_request("/api/loans/", 200, 0.004)
    one.observe_request("/api/loans/", 422, 0.004)
    one.commits_total.inc()
    one.projected_seq.set(12)
    text = one.render().decode()
    assert 'ledgerd_requests_total{route="/api/loans/",status="200"} 2.0' in text
    assert 'ledgerd_requests_total{route="/api/loans/",status="422"} 1.0' in text
    assert 'ledgerd_request_seconds_count{route="/api/loans/"} 3.0' in text
    assert "ledgerd_commits_total 1.0" in text
    assert "ledgerd_projected_seq 12.0" in text
    assert "ledgerd_commits_total 0.0" in other.render().decode()


# Distributions -----------------------------------------------------------------------------------


def shown(distribution: Distribution) -> list[float]:
    histogram = Distributions("h", "help", (1.0, 2.0, 4.0))
    histogram._by_value[""] = distribution
    [family] = histogram.collect()
    return [sample.value for sample in family.samples]


def test_a_bucket_has_its_bound_and_what_is_above_all_has_one_too():
    distribution = Distribution((1.0, 2.0, 4.0))
    for each in (0.0, 1.0, 1.5, 2.0, 4.5):
        distribution.observe(each)
    assert shown(distribution) == [2, 4, 4, 5, 5, 9.0]  # buckets are cumulative; count and sum


@pytest.mark.parametrize("seed", range(20))
def test_many_at_once_are_counted_as_one_by_one(seed):
    chance = random.Random(seed)
    values = [chance.choice([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]) for _ in range(chance.randrange(40))]
    one_by_one, at_once = Distribution((1.0, 2.0, 4.0)), Distribution((1.0, 2.0, 4.0))
    for each in values:
        one_by_one.observe(each)
    half = len(values) // 2
    at_once.observe_all(values[:half])
    at_once.observe_all(values[half:])
    assert shown(at_once) == shown(one_by_one)


# Phases ------------------------------------------------------------------------------------------


def test_phases_lie_end_to_end():
    metrics = Metrics()
    metrics.observe_payment(201, traced(100.0, 100.5, 101.5, 103.5, 107.5, 115.5), 131.5)
    assert phases(metrics) == {
        "auth": 0.5,
        "parse": 1.0,
        "mailbox": 2.0,
        "decide": 4.0,
        "commit": 8.0,
        "respond": 16.0,
    }
    assert value(metrics, "ledgerd_request_seconds_sum", route=PAYMENT_ROUTE) == 31.5
    assert value(metrics, "ledgerd_requests_total", route=PAYMENT_ROUTE, status="201") == 1


def test_who_did_not_wait_was_in_the_mailbox_and_on_the_disk_for_no_time():
    metrics = Metrics()
    before_it = 99.0  # the last batch that was acknowledged
    metrics.observe_payment(409, traced(100.0, 100.5, 101.5, 0.0, 103.5, before_it), 104.5)
    assert phases(metrics) == {
        "auth": 0.5,
        "parse": 1.0,
        "mailbox": 0.0,
        "decide": 2.0,
        "commit": 0.0,
        "respond": 1.0,
    }


@pytest.mark.parametrize(
    ("stamps", "last", "seconds"),
    [
        ((100.0,), "auth", 50.0),
        ((100.0, 110.0), "parse", 40.0),
        ((100.0, 110.0, 120.0), "mailbox", 30.0),
        ((100.0, 110.0, 120.0, 130.0), "decide", 20.0),
        ((100.0, 110.0, 120.0, 130.0, 140.0), "commit", 10.0),
        ((100.0, 110.0, 120.0, 0.0, 140.0), "commit", 10.0),
    ],
)
def test_who_is_refused_on_the_way_is_in_the_last_phase_to_the_end(stamps, last, seconds):
    metrics = Metrics()
    metrics.observe_payment(422, traced(*stamps), 150.0)
    found = phases(metrics)
    assert list(found) == list(PHASES[: PHASES.index(last) + 1])
    assert found[last] == seconds
    assert sum(found.values()) == 50.0 == value(metrics, "ledgerd_request_seconds_sum", route=PAYMENT_ROUTE)


@pytest.mark.parametrize("seed", range(5))
def test_phases_add_up_to_the_whole_whatever_comes(seed):
    chance, metrics, many = random.Random(seed), Metrics(), 3 * FOLD_TRACES + 100
    whole_s, buckets = 0.0, 0
    for _ in range(many):
        stamps = [10_000.0]
        for _ in range(len(STAMPS) - 1):
            stamps.append(stamps[-1] + chance.expovariate(chance.choice([1.0, 1_000.0, 100_000.0])))
        ended_s = stamps[-1] + chance.random() / 1_000
        reached = stamps[: chance.randint(1, 12)]
        if len(reached) > 4 and chance.random() < 0.5:
            reached[3] = 0.0  # decided at once
        metrics.observe_payment(201, traced(*reached), ended_s)
        whole_s += ended_s - stamps[0]
        commit_s = ended_s if len(reached) == 5 else stamps[5]
        buckets += len(reached) >= 5 and commit_s - stamps[4] <= PHASE_BUCKETS_S[6]
    assert sum(phases(metrics).values()) == pytest.approx(whole_s, rel=1e-9)
    whole = value(metrics, "ledgerd_request_seconds_sum", route=PAYMENT_ROUTE)
    assert whole == pytest.approx(whole_s, rel=1e-9)
    assert value(metrics, "ledgerd_request_seconds_count", route=PAYMENT_ROUTE) == many
    assert value(metrics, "ledgerd_payment_phase_seconds_count", phase="auth") == many
    bucket = "ledgerd_payment_phase_seconds_bucket"
    assert value(metrics, bucket, phase="commit", le="0.001") == buckets


def test_what_is_gathered_is_bounded():
    metrics = Metrics()
    for _ in range(2 * FOLD_TRACES + 7):
        metrics.observe_payment(201, traced(1.0, 2.0, 3.0, 4.0, 5.0, 6.0), 7.0)
        assert len(metrics._phases._stamps) < FOLD_TRACES * (len(PHASES) + 1)


def test_a_trace_is_received_until_it_is_decided_and_decided_once():
    trace, before_s = Trace(time.perf_counter()), time.perf_counter()
    trace.received()
    trace.decided()
    first = trace.received_s, trace.decided_s
    assert before_s <= first[0] <= first[1] <= time.perf_counter()
    trace.received()
    trace.decided()
    assert (trace.received_s, trace.decided_s) == first


def test_nobody_times_what_is_not_traced():
    before = UNTRACED.received_s, UNTRACED.decided_s
    UNTRACED.received()
    UNTRACED.decided()
    assert (UNTRACED.received_s, UNTRACED.decided_s) == before
