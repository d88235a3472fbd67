"""Intervals: how far a metric on a finite test set may be from the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pewb.record import Metric

_RESAMPLES = 1000
_CONFIDENCE = 0.95
_NUMBERS_AT_ONCE = 10_000_000
"""That are drawn at a time: 80 MB."""


def proportion(num_successes: int, num_trials: int) -> Metric:
    """Return a proportion with its 95 % Wilson score interval (Wilson 1927; `scipy.stats.binomtest`)."""
    from scipy.stats import binomtest

    interval = binomtest(num_successes, num_trials).proportion_ci(_CONFIDENCE, method="wilson")
    return Metric(
        value=num_successes / num_trials, low=float(interval.low), high=float(interval.high), interval="wilson"
    )


def bootstrap(metric: Callable[[np.ndarray], np.ndarray], counts: np.ndarray) -> Metric:
    """Return a metric of a confusion matrix with its 95 % percentile bootstrap interval over examples (Efron 1979).

    Drawing examples with replacement is drawing the matrix's cells from a multinomial distribution. The draws are seeded,
    so that the same predictions give the same interval.

    Args:
        metric: takes matrices (resamples, classes, classes), rows being true classes, and returns (resamples,) values.
        counts: the confusion matrix (classes, classes).
    """
    total = int(counts.sum())
    drawn = np.random.default_rng(0).multinomial(total, counts.ravel() / total, size=_RESAMPLES)
    return _between(float(metric(counts[None])[0]), metric(drawn.reshape(_RESAMPLES, *counts.shape)))


def ratio(sums: np.ndarray, weights: np.ndarray) -> Metric:
    """Return a mean over the parts of examples with its 95 % percentile bootstrap interval over examples (Efron 1979).

    The parts of one example are alike, so whole examples are drawn. The draws are seeded. Without any part it is 0.

    Args:
        sums: the sum over each example's parts, (examples,).
        weights: how many parts each example has, (examples,).
    """

    def mean(drawn: np.ndarray) -> np.ndarray:
        return np.asarray(np.divide(drawn[:, 0], drawn[:, 1], out=np.full(len(drawn), np.nan), where=drawn[:, 1] > 0))

    return resampled_sums(mean, np.stack([sums, weights], axis=1))


def resampled_sums(metric: Callable[[np.ndarray], np.ndarray], parts: np.ndarray) -> Metric:
    """Return a metric of sums over examples with its 95 % percentile bootstrap interval over examples (Efron 1979).

    Args:
        metric: takes the sums, (resamples, parts), and returns (resamples,) values, NaN where there is none.
        parts: what each example adds, (examples, parts).
    """
    return weighted(lambda counts: metric(counts @ parts), len(parts))


def weighted(metric: Callable[[np.ndarray], np.ndarray], num_examples: int) -> Metric:
    """Return a metric of examples with its 95 % percentile bootstrap interval over them (Efron 1979); 0 if it has no value.

    The draws are seeded, so that the same predictions give the same interval.

    Args:
        metric: takes how often each example was drawn, (resamples, examples), and returns (resamples,) values, NaN where
            there is none.
        num_examples: that are drawn from.
    """
    value = float(metric(np.ones((1, num_examples)))[0])
    if math.isnan(value):
        return Metric(value=0.0, low=0.0, high=0.0, interval="bootstrap")
    generator = np.random.default_rng(0)
    shares = np.full(num_examples, 1 / num_examples)
    at_once = max(1, _NUMBERS_AT_ONCE // num_examples)
    sizes = [min(at_once, _RESAMPLES - start) for start in range(0, _RESAMPLES, at_once)]
    values = np.concatenate([metric(generator.multinomial(num_examples, shares, size=size)) for size in sizes])
    return _between(value, values[~np.isnan(values)])


def resampled(metric: Callable[[np.ndarray, np.ndarray], float], *columns: np.ndarray) -> Metric:
    """Return a metric of columns of numbers, (examples,), with its 95 % percentile bootstrap interval over examples."""
    generator = np.random.default_rng(0)
    num_examples = len(columns[0])
    drawn = (generator.integers(num_examples, size=num_examples) for _ in range(_RESAMPLES))
    values = np.array([metric(*(column[one] for column in columns)) for one in drawn])
    return _between(metric(*columns), values)


def _between(value: float, values: np.ndarray) -> Metric:
    """Return a metric whose interval holds 95 % of the resampled `values`."""
    tail = (1 - _CONFIDENCE) / 2
    low, high = (float(bound) for bound in np.quantile(values, [tail, 1 - tail]))
    return Metric(value=value, low=min(low, value), high=max(high, value), interval="bootstrap")
