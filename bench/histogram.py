"""Latencies in a log-linear histogram: small, within 1 % of the truth, and merged, never averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

SUB_BITS = 7  # each power of two is cut into 128 buckets, so a bucket is at most 1/128 of its value wide


class Histogram(msgspec.Struct):
    """Counts of whole microseconds by bucket; below 256 us each value has a bucket of its own."""

    counts: dict[int, int] = {}  # msgspec copies an empty default for each instance
    count: int = 0
    max_us: int = 0

    def add(self, value_us: int) -> None:
        index = bucket(value_us)
        self.counts[index] = self.counts.get(index, 0) + 1
        self.count += 1
        self.max_us = max(self.max_us, value_us)

    def percentile_ms(self, percent: float) -> float:
        """The least value that `percent` of all values do not pass, to the top of its bucket; 0 if empty."""
        rank = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for index in sorted(self.counts):
            seen += self.counts[index]
            if seen >= rank:
                return min(top_us(index), self.max_us) / 1000
        return 0.0


def bucket(value_us: int) -> int:
    """Return the number of the bucket that holds a value; a clock that went back counts as 0."""
    value_us = max(value_us, 0)
    shift = max(value_us.bit_length() - SUB_BITS - 1, 0)
    return (shift << SUB_BITS) + (value_us >> shift)


def top_us(index: int) -> int:
    """Return the largest value of a bucket."""
    shift = max((index >> SUB_BITS) - 1, 0)
    return ((index - (shift << SUB_BITS) + 1) << shift) - 1


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Return one histogram of all the values."""
    whole = Histogram()
    for each in histograms:
        for index, count in each.counts.items():
            whole.counts[index] = whole.counts.get(index, 0) + count
        whole.count += each.count
        whole.max_us = max(whole.max_us, each.max_us)
    return whole
