"""References: classical predictors on a task's own examples, against which every strategy is held."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pewb.errors import TrainingError
from pewb.evaluation.metrics import regression_metrics
from pewb.heads import Predicted
from pewb.heads.classes import ClassPredictions
from pewb.heads.multi_label import SetPredictions
from pewb.heads.number import NumberPredictions
from pewb.heads.words import TagPredictions
from pewb.tasks import Examples, Split, TaskFamily

_STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Of the logistic regression, C: inverse of the penalty's weight."""
_PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Of the ridge regression, alpha: the penalty's weight."""


@dataclass(frozen=True)
class Reference:
    """What a classical predictor says of the test split, and how it was made."""

    predictions: Predicted
    settings: str
    trials: list[tuple[dict[str, Any], float]] = field(default_factory=list)
    """The values tried, each with what it reached on validation by the task's main metric."""
    chosen: dict[str, Any] = field(default_factory=dict)
    """The values that reached the most; of equals the first."""


def majority_class(task: TaskFamily, examples: Examples) -> Reference:
    """Answer with the class that is most frequent in training, whatever the text; of sets, with all that most have."""
    train = examples.train
    if task.form == "multi_label":
        shares = np.asarray(train.labels).mean(0)
        told = ", ".join(name for name, share in zip(examples.labels, shares, strict=True) if share > 0.5)
    else:
        shares = np.bincount(train.labels, minlength=len(examples.labels)) / len(train)
        told = f"'{examples.labels[int(shares.argmax())]}'"
    always = np.tile(shares, (len(examples.test), 1))
    return Reference(_class_predictions(task, examples.test, examples.labels, always), f"always {told or 'no class'}")


def tf_idf_logistic_regression(task: TaskFamily, examples: Examples) -> Reference:
    """Fit a logistic regression to the TF-IDF weights of words and pairs of words; of sets, one for each class.

    Term frequencies are damped to 1 + log(frequency) (Salton and Buckley 1988). The strength of the penalty is chosen on
    the validation split, as what is tuned of a strategy is; the test split is predicted once, after.
    """
    from sklearn.linear_model import LogisticRegression

    train, validation, test = _tf_idf(examples)
    sets = task.form == "multi_label"

    def probabilities(strength: float, texts: Any) -> np.ndarray:
        models = fitted[strength]
        if not sets:
            found = np.zeros((texts.shape[0], len(examples.labels)))
            found[:, models[0].classes_] = models[0].predict_proba(texts)
            return found
        columns = [
            np.full(texts.shape[0], one) if isinstance(one, float) else one.predict_proba(texts)[:, 1] for one in models
        ]
        return np.stack(columns, axis=1)

    def fit(strength: float, labels: np.ndarray) -> Any:
        """Return the fitted model; of a class that all or none of the training examples have, that share."""
        if len(set(labels.tolist())) == 1:
            return float(labels[0])
        return LogisticRegression(C=strength, max_iter=1000).fit(train, labels)

    told = np.asarray(examples.train.labels)
    columns = list(told.T) if sets else [told]
    fitted = {strength: [fit(strength, column) for column in columns] for strength in _STRENGTHS}

    def reached(strength: float) -> float:
        told = _class_predictions(task, examples.validation, examples.labels, probabilities(strength, validation))
        return told.metrics()[task.main_metric].value

    trials = {strength: reached(strength) for strength in _STRENGTHS}
    best = max(trials, key=lambda strength: trials[strength])
    return Reference(
        _class_predictions(task, examples.test, examples.labels, probabilities(best, test)),
        f"1-2-grams, C={best:g} tuned",
        [({"C": strength}, value) for strength, value in trials.items()],
        {"C": best},
    )


def mean(task: TaskFamily, examples: Examples) -> Reference:
    """Answer with the mean of the training numbers, whatever the text."""
    value = float(np.mean(examples.train.labels))
    return Reference(NumberPredictions([value] * len(examples.test), list(examples.test.labels)), f"always {value:.4g}")


def tf_idf_ridge(task: TaskFamily, examples: Examples) -> Reference:
    """Fit a ridge regression to the TF-IDF weights of words and pairs of words; its penalty is chosen on the validation split."""
    from sklearn.linear_model import Ridge

    train, validation, test = _tf_idf(examples)
    models = {alpha: Ridge(alpha=alpha).fit(train, examples.train.labels) for alpha in _PENALTIES}
    reached = {
        alpha: regression_metrics(examples.validation.labels, model.predict(validation).tolist())["pearson"].value
        for alpha, model in models.items()
    }
    best = max(reached, key=lambda alpha: reached[alpha])
    return Reference(
        NumberPredictions(models[best].predict(test).tolist(), list(examples.test.labels)),
        f"1-2-grams, alpha={best:g} tuned",
        [({"alpha": alpha}, value) for alpha, value in reached.items()],
        {"alpha": best},
    )


def most_frequent_tag(task: TaskFamily, examples: Examples) -> Reference:
    """Answer with the tag that each word has most often in training, and an unseen word with the most frequent of all."""
    by_word: dict[str, Counter[int]] = defaultdict(Counter)
    overall: Counter[int] = Counter()
    for words, tags in zip(examples.train.texts, examples.train.labels, strict=True):
        overall.update(tags)
        for word, tag in zip(words, tags, strict=True):
            by_word[word][tag] += 1
    most = overall.most_common(1)[0][0]
    best = {word: counts.most_common(1)[0][0] for word, counts in by_word.items()}
    predicted = [[best.get(word, most) for word in words] for words in examples.test.texts]
    predictions = TagPredictions(predicted, examples.test.labels, examples.labels)
    return Reference(predictions, f"unseen words '{examples.labels[most]}'")


def random_choice(task: TaskFamily, examples: Examples) -> Reference:
    """Answer with any of an example's choices: what is reached without reading."""
    from pewb.heads.choices import ChoicePredictions

    generator = np.random.default_rng(0)
    scores = [torch.from_numpy(generator.random(len(texts) - 1)) for texts in examples.test.texts]
    return Reference(ChoicePredictions(scores, scores, list(examples.test.labels)), "any choice, drawn with seed 0")


def _class_predictions(task: TaskFamily, split: Split, names: Sequence[str], probabilities: np.ndarray) -> Predicted:
    shares = torch.from_numpy(probabilities)
    if task.form == "multi_label":
        return SetPredictions(shares, torch.tensor(split.labels), names)
    return ClassPredictions(shares, list(split.labels), names)


def _tf_idf(examples: Examples) -> Sequence[Any]:
    """Return the weights of words and pairs of words in the texts of training, validation and test."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        train = vectorizer.fit_transform(_documents(examples.train))
    except ValueError:  # an empty vocabulary
        raise TrainingError("no training text has a word in it, so there is nothing to weigh") from None
    return [train, *(vectorizer.transform(_documents(split)) for split in (examples.validation, examples.test))]


def _documents(split: Split) -> list[str]:
    return ["\n".join(texts) for texts in split.texts]


REFERENCES: dict[str, Callable[[TaskFamily, Examples], Reference]] = {
    "majority_class": majority_class,
    "tf_idf_logistic_regression": tf_idf_logistic_regression,
    "mean": mean,
    "tf_idf_ridge": tf_idf_ridge,
    "most_frequent_tag": most_frequent_tag,
    "random_choice": random_choice,
}
