"""What the metrics by which tasks are judged have in common: which way is better, and what a new head makes of them."""

from __future__ import annotations

LESS_IS_BETTER = frozenset({"loss", "perplexity", "mean_squared_error"})

_OF_PRETRAINED_HEADS = frozenset({"loss", "perplexity", "accuracy_normalised"})
"""Main metrics of the tasks whose head is pre-trained: the untouched model can do them."""


def greater_is_better(metric: str | None) -> bool:
    """Return whether a greater value of `metric` is the better one."""
    return metric not in LESS_IS_BETTER


def needs_new_head(metric: str | None) -> bool:
    """Return whether a model that is judged by `metric` has a head that was drawn anew."""
    return metric not in _OF_PRETRAINED_HEADS
