import math

from hypothesis import given
from hypothesis import strategies as st

from bench.histogram import Histogram, bucket, merged, top_us

VALUES_US = st.lists(st.integers(0, 10**9), min_size=1, max_size=200)
PERCENTS = st.floats(0.1, 100)


def histogram_of(values_us):
    histogram = Histogram()
    for value_us in values_us:
        histogram.add(value_us)
    return histogram


@given(st.integers(0, 2**40))
def test_a_bucket_is_at_most_a_hundredth_of_its_value_wide(value_us):
    top = top_us(bucket(value_us))
    assert value_us <= top <= value_us * 1.01
    assert bucket(top) == bucket(value_us) == bucket(top + 1) - 1


@given(VALUES_US, PERCENTS)
def test_a_percentile_is_the_value_of_that_rank_to_within_its_bucket(values_us, percent):
    exact_us = sorted(values_us)[max(1, math.ceil(len(values_us) * percent / 100)) - 1]
    found_us = histogram_of(values_us).percentile_ms(percent) * 1000
    assert exact_us - 1e-6 <= found_us <= exact_us * 1.01 + 1e-6


@given(VALUES_US, PERCENTS, PERCENTS)
def test_percentiles_rise_and_end_at_the_largest(values_us, one, other):
    histogram = histogram_of(values_us)
    low, high = sorted((one, other))
    assert histogram.percentile_ms(low) <= histogram.percentile_ms(high) <= histogram.percentile_ms(100)
    assert histogram.percentile_ms(100) == max(values_us) / 1000


@given(VALUES_US, VALUES_US)
def test_merged_histograms_are_the_histogram_of_all_values(some_us, more_us):
    assert merged([histogram_of(some_us), histogram_of(more_us)]) == histogram_of(some_us + more_us)


def test_a_histogram_of_nothing_says_0_and_a_clock_that_went_back_counts_as_0():
    assert Histogram().percentile_ms(99) == 0
    assert histogram_of([-5]).percentile_ms(100) == 0
