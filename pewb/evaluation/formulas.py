"""Formulas of metrics that follow from counts or sums, of many resamples at once; NumPy alone, for they are needed where it is fast.

Matrices are (resamples, classes, classes), true classes in rows; multiplying all of one by a number changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

_UNDERSCORED = re.compile("^([BIES])_(?=.)")
"""How a tag begins in files that write B_PER for B-PER."""

Entities = set[tuple[str, int, int]]
"""The type of each entity of a sentence, and its first and last word."""


def _f1_by_class(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return F1 of each class, (resamples, classes), 0 where undefined; and which classes occur at all."""
    hits = np.diagonal(counts, axis1=1, axis2=2)
    both = counts.sum(1) + counts.sum(2)
    return np.divide(2.0 * hits, both, out=np.zeros(hits.shape), where=both > 0), both > 0


def binary_f1(counts: np.ndarray) -> np.ndarray:
    """Return F1 of the second class of each matrix."""
    scores, _ = _f1_by_class(counts)
    return np.asarray(scores[:, 1])


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Return the mean of F1 over the classes that occur in each matrix."""
    scores, occurs = _f1_by_class(counts)
    return np.asarray(scores.sum(1) / occurs.sum(1))


def matthews_correlation(counts: np.ndarray) -> np.ndarray:
    """Return the multi-class coefficient (Gorodkin 2004, equation 8) of each matrix, 0 where undefined."""
    total = counts.sum((1, 2)).astype(float)
    return matthews_of_sums(counts.trace(axis1=1, axis2=2), counts.sum(2), counts.sum(1), total)


def matthews_of_sums(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return the same from how many are right, (resamples,), are of each class, (resamples, classes), and are taken for it."""
    covariance = hits * total - (true * predicted).sum(1)
    spreads = [total**2 - (one**2).sum(1) for one in (predicted, true)]
    norm = np.sqrt(np.clip(spreads[0], 0, None) * np.clip(spreads[1], 0, None))
    return np.asarray(np.divide(covariance, norm, out=np.zeros(norm.shape), where=norm > 1e-12))


def moments(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return what a correlation is made of, for each example: (examples, 6)."""
    first, second = first - first.mean(), second - second.mean()
    return np.stack([np.ones(len(first)), first, second, first**2, second**2, first * second], axis=1)


def correlation(sums: np.ndarray) -> np.ndarray:
    """Return Pearson's coefficient from the sums of moments, (resamples, 6); 0 where one side is constant."""
    count, first, second, first_squares, second_squares, products = sums.T
    covariance = products - first * second / count
    variances = [squares - one**2 / count for squares, one in ((first_squares, first), (second_squares, second))]
    norm = np.sqrt(np.clip(variances[0], 0, None) * np.clip(variances[1], 0, None))
    return np.asarray(np.divide(covariance, norm, out=np.zeros(norm.shape), where=norm > 1e-12))


def entities_of(labels: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> list[tuple[Entities, Entities]]:
    """Return the true and the predicted entities of each sentence, as seqeval finds them.

    Tags without B- and I- are entities of one word each.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    given = {tag for row in labels for tag in row} - {"O"}
    if all(_UNDERSCORED.match(tag) for tag in given):
        labels, predicted = (
            [[_UNDERSCORED.sub(r"\1-", tag) for tag in row] for row in rows] for rows in (labels, predicted)
        )
    elif not any(tag[1:2] == "-" for tag in given):
        labels, predicted = (
            [[tag if tag == "O" else f"S-{tag}" for tag in row] for row in rows] for rows in (labels, predicted)
        )
    return [
        (set(get_entities(list(true))), set(get_entities(list(told))))
        for true, told in zip(labels, predicted, strict=True)
    ]
