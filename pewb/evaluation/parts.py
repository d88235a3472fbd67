"""What each test example adds to a metric, and how the metric follows from the means: what paired tests are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pewb.evaluation.formulas import correlation, entities_of, matthews_of_sums, moments

Measure = Callable[[np.ndarray], np.ndarray]
"""A metric: its values, (…), from the means over examples of what each adds, (…, parts)."""
Columns = Mapping[str, Sequence[str]]
"""Of a table of predictions (`pewb.evaluation.tables`), by name."""

LABELS = ("label", "labels", "number", "tags", "answer", "choice", "tokens")
"""The columns that are the same whatever was predicted; each table has one."""


@dataclass(frozen=True)
class Parts:
    """One run's predictions."""

    values: np.ndarray
    """Whether each example is right, (examples, 1) of bool; or numbers, (examples, parts)."""
    measure: Measure


def mean(means: np.ndarray) -> np.ndarray:
    """Return the mean of the only part."""
    return means[..., 0]


def ratio(means: np.ndarray) -> np.ndarray:
    """Return the first part over the second; 0 where that is 0."""
    above, below = means[..., 0], means[..., 1]
    return np.asarray(np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0))


def is_tested(metric: str | None) -> bool:
    """Return whether runs that are judged by `metric` can be tested."""
    return metric in _PARTS


def parts_of(metric: str, columns: Columns) -> Parts:
    """Return what each example adds to `metric`.

    Raises:
        KeyError: a column is missing.
        ValueError: a column holds something else.
    """
    return _PARTS[metric](columns)


def _right(columns: Columns) -> Parts:
    true = columns["labels" if "labels" in columns else "label"]
    return Parts(np.array([one == other for one, other in zip(true, columns["predicted"], strict=True)])[:, None], mean)


def _right_choice(columns: Columns) -> Parts:
    pairs = zip(columns["choice"], columns["predicted"], strict=True)
    return Parts(np.array([one == other for one, other in pairs])[:, None], mean)


def _loss(columns: Columns) -> Parts:
    return Parts(_numbers(columns["loss"], columns["tokens"]), ratio)


def _pearson(columns: Columns) -> Parts:
    true, told = _numbers(columns["number"], columns["predicted"]).T
    return Parts(moments(true, told), _flattened(correlation))


def _f1(columns: Columns) -> Parts:
    """Return the parts of F1 over words of answers, over entities, or over classes, which have columns of their own."""
    if "f1" in columns:
        return Parts(_numbers(columns["f1"]), mean)
    if "tags" in columns:
        rows = [[row.split() for row in columns[name]] for name in ("tags", "predicted")]
        counts = [(2 * len(one & other), len(one) + len(other)) for one, other in entities_of(*rows)]
        return Parts(np.asarray(counts, float), ratio)
    true, told = _one_hot(columns)
    if true.shape[1] == 2:  # F1 of the second class
        return Parts(np.stack([2 * true[:, 1] * told[:, 1], true[:, 1] + told[:, 1]], axis=1), ratio)
    pairs = np.stack([2 * true * told, true + told], axis=2).reshape(len(true), -1)
    return Parts(pairs, _mean_over_classes_that_occur)


def _mean_over_classes_that_occur(means: np.ndarray) -> np.ndarray:
    pairs = means.reshape(*means.shape[:-1], -1, 2)
    return np.asarray(ratio(pairs).sum(-1) / (pairs[..., 1] > 0).sum(-1))


def _matthews(columns: Columns) -> Parts:
    true, told = _one_hot(columns)
    size = true.shape[1]
    hits = (true * told).sum(1, keepdims=True)

    def coefficient(means: np.ndarray) -> np.ndarray:
        return matthews_of_sums(means[:, 0], means[:, 1 : size + 1], means[:, size + 1 :], np.ones(len(means)))

    return Parts(np.concatenate([hits, true, told], axis=1), _flattened(coefficient))


def _one_hot(columns: Columns) -> list[np.ndarray]:
    """Return the class of each example, and that it was taken for, (examples, classes), 0 and 1."""
    places = {name: place for place, name in enumerate(_classes(columns))}
    return [np.eye(len(places))[[places[one] for one in columns[name]]] for name in ("label", "predicted")]


def _f1_of_sets(is_macro: bool) -> Callable[[Columns], Parts]:
    def parts(columns: Columns) -> Parts:
        places = {name: place for place, name in enumerate(_classes(columns))}
        true, told = (_sets(columns[name], places) for name in ("labels", "predicted"))
        above, below = 2 * true * told, true + told
        if not is_macro:
            return Parts(np.stack([above.sum(1), below.sum(1)], axis=1), ratio)
        pairs = np.stack([above, below], axis=2).reshape(len(true), -1)
        return Parts(pairs, lambda means: ratio(means.reshape(*means.shape[:-1], -1, 2)).mean(-1))

    return parts


def _sets(told: Sequence[str], places: Mapping[str, int]) -> np.ndarray:
    """Return which classes each row names, (rows, classes), 0 and 1; a class's own name may hold a comma."""
    found = np.zeros((len(told), len(places)))
    for row, text in enumerate(told):
        rest = f",{text},"
        for name in sorted(places, key=len, reverse=True):
            if f",{name}," in rest:
                found[row, places[name]] = 1
                rest = rest.replace(f",{name},", ",", 1)
        if rest.strip(","):
            raise ValueError(f"'{rest}' is no class")
    return found


def _classes(columns: Columns) -> list[str]:
    return [name[2:-1] for name in columns if name.startswith("p(")]


def _numbers(*columns: Sequence[str]) -> np.ndarray:
    return np.stack([np.asarray([float(one) for one in column]) for column in columns], axis=1)


def _flattened(formula: Callable[[np.ndarray], np.ndarray]) -> Measure:
    """Return a formula of (resamples, parts) for any shape of means."""

    def measure(means: np.ndarray) -> np.ndarray:
        return formula(means.reshape(-1, means.shape[-1])).reshape(means.shape[:-1])

    return measure


_PARTS: dict[str, Callable[[Columns], Parts]] = {
    "accuracy": _right,
    "accuracy_normalised": _right_choice,
    "f1": _f1,
    "f1_micro": _f1_of_sets(is_macro=False),
    "f1_macro": _f1_of_sets(is_macro=True),
    "loss": _loss,
    "matthews_correlation": _matthews,
    "pearson": _pearson,
}
