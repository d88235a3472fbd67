"""Runs of one row, pooled over its seeds: metrics with their intervals, memory, times."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from pewb.record import Memory, Metric, Peak, Time


def pooled_metrics(runs: list[dict[str, Metric]]) -> dict[str, Metric]:
    """Return each metric of the runs as `pooled_metric` does, over the runs that have it."""
    values: dict[str, list[Metric]] = defaultdict(list)
    for metrics in runs:
        for name, metric in metrics.items():
            values[name].append(metric)
    return {name: pooled_metric(name, values[name]) for name in sorted(values)}


def pooled_metric(name: str, metrics: Sequence[Metric]) -> Metric:
    """Return the mean of one metric over seeds, with its 95 % interval.

    One seed: the run's own interval. Several seeds: below and above the mean separately, `sqrt(test² + seed²)`, where
    `test` is the mean half-width of the runs' own intervals (every seed is tested on the same examples, so averaging
    does not shrink it) and `seed` is Student's t (0.975, n - 1 degrees of freedom) times the standard error over the n
    seeds. The interval is clipped to the metric's range where that is known.
    """
    if len(metrics) == 1:
        return metrics[0]
    from scipy.special import stdtrit  # the quantile of scipy.stats.t, at a tenth of the import time

    values = [metric.value for metric in metrics]
    mean = statistics.fmean(values)
    seed = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    below = math.hypot(statistics.fmean(max(0.0, metric.value - metric.low) for metric in metrics), seed)
    above = math.hypot(statistics.fmean(max(0.0, metric.high - metric.value) for metric in metrics), seed)
    lowest, highest = _range(name)
    low, high = min(mean, max(lowest, mean - below)), max(mean, min(highest, mean + above))
    return Metric(
        value=mean, low=low, high=high, interval=f"{metrics[0].interval} and Student t over {len(values)} seeds"
    )


def mean_metric(metrics: Sequence[Metric]) -> Metric:
    """Return the mean of value and bounds, where the interval is of the same kind."""
    bounds = {name: statistics.fmean(getattr(one, name) for one in metrics) for name in ("value", "low", "high")}
    return Metric(**bounds, interval=metrics[0].interval)


def largest_memory(memories: list[Memory]) -> Memory:
    """Return the largest of each peak; one that no run measured stays unknown."""
    return Memory(
        train=Peak(**_over_fields([memory.train for memory in memories], max)),
        evaluation=Peak(**_over_fields([memory.evaluation for memory in memories], max)),
    )


def mean_time(times: list[Time]) -> Time:
    """Return the mean of each time over the runs that measured it."""
    return Time(**_over_fields(times, statistics.fmean))


def _range(name: str) -> tuple[float, float]:
    if "correlation" in name or name in ("pearson", "spearman", "cohen_kappa"):
        return -1.0, 1.0
    if name == "loss":
        return 0.0, math.inf
    if name == "perplexity":
        return 1.0, math.inf
    if "accuracy" in name or "f1" in name or name in ("precision", "recall"):
        return 0.0, 1.0
    return -math.inf, math.inf


def _over_fields(sections: Sequence[BaseModel], reduce: Callable[[list[Any]], Any]) -> dict[str, Any]:
    """Return each field of the sections reduced to one value over those that measured it, or None if none did."""
    values: dict[str, list[Any]] = defaultdict(list)
    for section in sections:
        for name, value in section:
            if value is not None:
                values[name].append(value)
    return {name: reduce(measured) for name, measured in values.items()}
