"""Metrics of each form of task, with their intervals; where there is a reference (scikit-learn, scipy, seqeval) they are its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef

from pewb.evaluation.formulas import binary_f1, correlation, entities_of, macro_f1, matthews_correlation, moments
from pewb.evaluation.intervals import bootstrap, proportion, ratio, resampled, resampled_sums, weighted
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


def classification_metrics(
    labels: Sequence[int], predicted: Sequence[int], probabilities: np.ndarray
) -> dict[str, Metric]:
    """Return accuracy, F1 (of the second class of two, else macro), Matthews correlation and AUROC, with 95 % intervals.

    AUROC is that of the second class of two, else the mean over the classes, each against the rest (Fawcett 2006); it is
    left out if there is no class of which some examples are and some are not.

    Args:
        labels: the class of each example.
        predicted: the class that was predicted.
        probabilities: (examples, classes).
    """
    num_classes = probabilities.shape[1]
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
        "f1": bootstrap(binary_f1 if num_classes == 2 else macro_f1, counts),
        "matthews_correlation": bootstrap(matthews_correlation, counts),
    }
    found = {name: interval.model_copy(update={"value": measured[name]}) for name, interval in intervals.items()}
    classes = [1] if num_classes == 2 else list(range(num_classes))
    is_positive = np.stack([np.asarray(labels) == number for number in classes], axis=1)
    return found | _auroc(is_positive, probabilities[:, classes])


def multi_label_metrics(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, Metric]:
    """Return F1 over all decisions (micro) and its mean over the classes (macro), exact matches (accuracy) and AUROC.

    Args:
        labels: (examples, classes), 0 and 1; as `predicted`.
        predicted: (examples, classes), 0 and 1.
        probabilities: (examples, classes).
    """
    hits, told, true = (labels * predicted).astype(float), predicted.astype(float), labels.astype(float)
    parts = np.concatenate([2 * hits, told + true], axis=1)
    num_classes = labels.shape[1]

    def macro(sums: np.ndarray) -> np.ndarray:
        above, below = sums[:, :num_classes], sums[:, num_classes:]
        return np.asarray(np.divide(above, below, out=np.zeros(above.shape), where=below > 0).mean(1))

    return {
        "f1_micro": ratio(2 * hits.sum(1), (told + true).sum(1)),
        "f1_macro": resampled_sums(macro, parts),
        "accuracy": proportion(int((labels == predicted).all(1).sum()), len(labels)),
    } | _auroc(labels.astype(bool), probabilities)


def regression_metrics(labels: Sequence[float], predicted: Sequence[float]) -> dict[str, Metric]:
    """Return Pearson's and Spearman's correlation and the mean squared error, with 95 % intervals.

    A correlation with a constant is 0.
    """
    true, told = np.asarray(labels, float), np.asarray(predicted, float)
    return {
        "pearson": resampled_sums(correlation, moments(true, told)),
        "spearman": resampled(_spearman, true, told),
        "mean_squared_error": ratio((true - told) ** 2, np.ones(len(true))),
    }


def tag_metrics(labels: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Metric]:
    """Return F1, precision and recall over entities as seqeval counts them, F1 of each type, and the words' accuracy.

    Tags without B- and I- are entities of one word each; intervals are over sentences. What has no denominator is 0.
    """
    found = entities_of(labels, predicted)

    def counted(kind: str | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return hits, predicted and true entities of each sentence."""
        of_kind = [[{one for one in side if kind in (None, one[0])} for side in pair] for pair in found]
        numbers = [(len(true & told), len(told), len(true)) for true, told in of_kind]
        hits, told, true = np.asarray(numbers, float).T
        return hits, told, true

    hits, told, true = counted()
    metrics = {"f1": ratio(2 * hits, told + true), "precision": ratio(hits, told), "recall": ratio(hits, true)}
    for kind in sorted({one[0] for true_ones, _ in found for one in true_ones}):
        hits, told, true = counted(kind)
        metrics[f"f1({kind})"] = ratio(2 * hits, told + true)
    right = [
        sum(one == other for one, other in zip(*pair, strict=True)) for pair in zip(labels, predicted, strict=True)
    ]
    return metrics | {"accuracy": ratio(np.asarray(right, float), np.asarray([len(row) for row in labels], float))}


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


def _auroc(is_positive: np.ndarray, scores: np.ndarray) -> dict[str, Metric]:
    """Return the mean area under the ROC curve over the classes of which some examples are and some are not.

    Args:
        is_positive: (examples, classes), whether an example is of the class.
        scores: (examples, classes).
    """
    clear = is_positive.any(0) & ~is_positive.all(0)
    if not clear.any():
        return {}
    sorted_classes = [_Ranked(is_positive[:, number], scores[:, number]) for number in np.flatnonzero(clear)]

    def mean_area(counts: np.ndarray) -> np.ndarray:
        areas = np.stack([one.area(counts) for one in sorted_classes])
        known = ~np.isnan(areas)
        with np.errstate(invalid="ignore"):  # a resample may have no class of which there are both
            return np.asarray(np.where(known, areas, 0.0).sum(0) / known.sum(0))

    return {"auroc": weighted(mean_area, len(scores))}


class _Ranked:
    """One class's examples in the order of their scores, to find the area for any number of copies of each."""

    def __init__(self, is_positive: np.ndarray, scores: np.ndarray) -> None:
        self._order = np.argsort(scores, kind="stable")
        self._is_positive = is_positive[self._order]
        ordered = scores[self._order]
        self._ties = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def area(self, counts: np.ndarray) -> np.ndarray:
        """Return the area with `counts` copies of each example, (resamples, examples): (resamples,), NaN where undefined."""
        ordered = counts[:, self._order].astype(float)
        positive = np.add.reduceat(ordered * self._is_positive, self._ties, axis=1)
        negative = np.add.reduceat(ordered * ~self._is_positive, self._ties, axis=1)
        below = negative.cumsum(1) - negative / 2
        pairs = positive.sum(1) * negative.sum(1)
        return np.asarray(np.divide((positive * below).sum(1), pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of the ranks, equal values sharing their mean rank; 0 where one side is constant."""
    from scipy.stats import rankdata

    return float(correlation(moments(rankdata(first), rankdata(second)).sum(0)[None])[0])
