"""Metrics: of a classification, as `evaluate` modules that need no hub (scikit-learn counts), and of a language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef

from pewb.evaluation.intervals import bootstrap, proportion, ratio
from pewb.record import Confusion, Metric


class _ClassificationModule(evaluate.Metric):
    """What the three metrics share: predictions and references are class numbers."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "",
            citation="Pedregosa et al. 2011, Scikit-learn",
            features=datasets.Features({"predictions": number, "references": number}),
        )


class Accuracy(_ClassificationModule):
    """Share of the examples whose class was predicted."""

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class F1(_ClassificationModule):
    """F1 of the second class (`config_name="binary"`) or its mean over the classes (`"macro"`)."""

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        score = f1_score(references, predictions, average=self.config_name, zero_division=0.0)
        return {"f1": float(score)}


class MatthewsCorrelation(_ClassificationModule):
    """Matthews correlation coefficient: 0 for a useless predictor, whatever the balance of the classes."""

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}


def classification_metrics(labels: Sequence[int], predicted: Sequence[int], num_classes: int) -> dict[str, Metric]:
    """Return accuracy, F1 (of the second class of two, else macro) and Matthews correlation, with 95 % intervals."""
    average = "binary" if num_classes == 2 else "macro"
    modules = evaluate.combine(
        [
            Accuracy(keep_in_memory=True),
            F1(config_name=average, keep_in_memory=True),
            MatthewsCorrelation(keep_in_memory=True),
        ]
    )
    measured = modules.compute(predictions=list(predicted), references=list(labels))
    counts = confusion_matrix(labels, predicted, labels=list(range(num_classes)))
    intervals = {
        "accuracy": proportion(int(counts.trace()), len(labels)),
        "f1": bootstrap(_binary_f1 if num_classes == 2 else _macro_f1, counts),
        "matthews_correlation": bootstrap(_matthews_correlation, counts),
    }
    return {name: interval.model_copy(update={"value": measured[name]}) for name, interval in intervals.items()}


def language_metrics(losses: Sequence[float], num_tokens: Sequence[int]) -> dict[str, Metric]:
    """Return the mean loss over target tokens, in nats, and its exponential, the perplexity, with 95 % intervals.

    A perplexity beyond all floating-point numbers is left out.

    Args:
        losses: the sum of each example's losses.
        num_tokens: the number of each example's target tokens.
    """
    loss = ratio(np.asarray(losses, float), np.asarray(num_tokens, float))
    if loss.high > math.log(np.finfo(float).max):
        return {"loss": loss}
    bounds = {name: math.exp(getattr(loss, name)) for name in ("value", "low", "high")}
    return {"loss": loss, "perplexity": Metric(**bounds, interval=loss.interval)}


def confusion(labels: Sequence[int], predicted: Sequence[int], names: list[str]) -> Confusion:
    """Return how often each class (row) was taken for each (column)."""
    counts = confusion_matrix(labels, predicted, labels=list(range(len(names))))
    return Confusion(labels=names, counts=counts.tolist())


def _f1_by_class(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return F1 of each class, (resamples, classes), 0 where undefined; and which classes occur at all."""
    hits = np.diagonal(counts, axis1=1, axis2=2)
    both = counts.sum(1) + counts.sum(2)
    return np.divide(2.0 * hits, both, out=np.zeros(hits.shape), where=both > 0), both > 0


def _binary_f1(counts: np.ndarray) -> np.ndarray:
    scores, _ = _f1_by_class(counts)
    return np.asarray(scores[:, 1])


def _macro_f1(counts: np.ndarray) -> np.ndarray:
    scores, occurs = _f1_by_class(counts)
    return np.asarray(scores.sum(1) / occurs.sum(1))


def _matthews_correlation(counts: np.ndarray) -> np.ndarray:
    """Return the multi-class coefficient (Gorodkin 2004, equation 8) of each matrix, 0 where undefined."""
    total = counts.sum((1, 2)).astype(float)
    true, predicted = counts.sum(2).astype(float), counts.sum(1).astype(float)
    covariance = counts.trace(axis1=1, axis2=2) * total - (true * predicted).sum(1)
    norm = np.sqrt((total**2 - (predicted**2).sum(1)) * (total**2 - (true**2).sum(1)))
    return np.asarray(np.divide(covariance, norm, out=np.zeros(norm.shape), where=norm > 0))
