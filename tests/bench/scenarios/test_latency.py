"""When an overload is over."""

from __future__ import annotations

from bench.histogram import Histogram
from bench.openloop import OpenLoopResult, Slice
from bench.scenarios.latency import recovered_after_s


def result(*p99_ms: float) -> OpenLoopResult:
    """An overload of one second, and then slices of half a second with these latencies."""
    slices = [Slice(), Slice()]
    for each in p99_ms:
        latency = Histogram()
        latency.add(int(each * 1000))
        slices.append(Slice(statuses={201: 1}, latency=latency))
    return OpenLoopResult(
        scheduled_s=1.0 + len(p99_ms) / 2,
        slice_s=0.5,
        slices=slices,
        send_lag=Histogram(),
        uncorrected=Histogram(),
        cpu_s=0.0,
        elapsed_s=1.0,
        reconnects=0,
    )


def test_it_is_over_with_the_first_second_that_is_normal_throughout():
    assert recovered_after_s(result(500, 200, 5, 5, 5, 5), 1.0) == 1.0
    assert recovered_after_s(result(500, 5, 200, 5, 5, 5, 5, 5), 1.0) == 1.5


def test_a_lone_spike_later_is_no_part_of_it():
    assert recovered_after_s(result(500, 5, 5, 5, 200, 5, 5, 5, 5, 5), 1.0) == 0.5


def test_it_is_over_at_once_when_nothing_is_late():
    assert recovered_after_s(result(12, 8, 5, 5, 5, 5), 1.0) == 0.0


def test_it_is_not_over_when_no_second_is_normal():
    assert recovered_after_s(result(5, 200, 5, 200, 5, 200, 5, 200, 5), 1.0) == 4.5
