import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pewb.leaderboard.pooling import pooled_metric
from pewb.record import Metric


def test_the_interval_over_seeds_is_the_documented_one():
    runs = [
        Metric(value=0.80, low=0.78, high=0.81),
        Metric(value=0.82, low=0.79, high=0.85),
        Metric(value=0.81, low=0.79, high=0.83),
    ]
    pooled = pooled_metric("accuracy", runs)
    seed = stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(3)
    assert pooled.value == pytest.approx(0.81)
    assert pooled.low == pytest.approx(0.81 - math.sqrt(0.07**2 / 9 + seed**2))
    assert pooled.high == pytest.approx(0.81 + math.sqrt(0.06**2 / 9 + seed**2))


def test_one_run_keeps_its_own_interval():
    metric = Metric(value=0.8, low=0.7, high=0.95, interval="bootstrap")
    assert pooled_metric("accuracy", [metric]) is metric


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3), st.floats(0, 0.3)), min_size=1, max_size=6))
def test_an_interval_contains_its_mean_and_keeps_to_the_range(runs):
    metrics = [
        Metric(value=value, low=max(0, value - below), high=min(1, value + above)) for value, below, above in runs
    ]
    for name, lowest in (("accuracy", 0), ("matthews_correlation", -1)):
        pooled = pooled_metric(name, metrics)
        assert lowest - 1e-9 <= pooled.low <= pooled.value <= pooled.high <= 1 + 1e-9
    assert pooled_metric("perplexity", metrics).high >= pooled.high
