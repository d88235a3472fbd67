"""Intervals: how far a metric on a finite test set may be from the truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pewb.record import Metric

_RESAMPLES = 1000
_CONFIDENCE = 0.95


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
    values = metric(drawn.reshape(_RESAMPLES, *counts.shape))
    tail = (1 - _CONFIDENCE) / 2
    low, high = (float(bound) for bound in np.quantile(values, [tail, 1 - tail]))
    value = float(metric(counts[None])[0])
    return Metric(value=value, low=min(low, value), high=max(high, value), interval="bootstrap")


def ratio(sums: np.ndarray, weights: np.ndarray) -> Metric:
    """Return a mean over the parts of examples with its 95 % percentile bootstrap interval over examples (Efron 1979).

    The parts of one example are alike, so whole examples are drawn. The draws are seeded.

    Args:
        sums: the sum over each example's parts, (examples,).
        weights: how many parts each example has, (examples,).
    """
    generator = np.random.default_rng(0)
    pairs = np.stack([sums, weights], axis=1)
    counts = (generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums))) for _ in range(_RESAMPLES))
    drawn = np.array([count @ pairs for count in counts])
    values = drawn[drawn[:, 1] > 0]
    tail = (1 - _CONFIDENCE) / 2
    low, high = (float(bound) for bound in np.quantile(values[:, 0] / values[:, 1], [tail, 1 - tail]))
    value = float(sums.sum() / weights.sum())
    return Metric(value=value, low=min(low, value), high=max(high, value), interval="bootstrap")
