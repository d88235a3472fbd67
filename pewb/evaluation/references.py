"""References: classical predictors on a task's own examples, against which every strategy is held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pewb.tasks import Examples, Split

_STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Of the logistic regression, C: inverse of the penalty's weight."""


@dataclass(frozen=True)
class Reference:
    """What a classical predictor says of the test split, and how it was made."""

    probabilities: np.ndarray
    """(examples, classes), in the order of the split and of its labels."""
    settings: str
    trials: list[tuple[dict[str, Any], float]] = field(default_factory=list)
    """The values tried, each with the validation accuracy it reached."""
    chosen: dict[str, Any] = field(default_factory=dict)
    """The values that reached the most; of equals the first."""


def majority_class(examples: Examples) -> Reference:
    """Answer with the class that is most frequent in training, whatever the text."""
    shares = np.bincount(examples.train.labels, minlength=len(examples.labels)) / len(examples.train)
    only = examples.labels[int(shares.argmax())]
    return Reference(np.tile(shares, (len(examples.test), 1)), f"always '{only}'")


def tf_idf_logistic_regression(examples: Examples) -> Reference:
    """Fit a logistic regression to the TF-IDF weights of words and pairs of words.

    Term frequencies are damped to 1 + log(frequency) (Salton and Buckley 1988). The strength of the penalty is chosen on
    the validation split, as what is tuned of a strategy is; the test split is predicted once, after.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    train = vectorizer.fit_transform(_documents(examples.train))
    validation, test = (vectorizer.transform(_documents(split)) for split in (examples.validation, examples.test))
    models = {
        strength: LogisticRegression(C=strength, max_iter=1000).fit(train, examples.train.labels)
        for strength in _STRENGTHS
    }
    reached = {
        strength: float(model.score(validation, examples.validation.labels)) for strength, model in models.items()
    }
    best = max(reached, key=lambda strength: reached[strength])
    probabilities = np.zeros((len(examples.test), len(examples.labels)))
    probabilities[:, models[best].classes_] = models[best].predict_proba(test)
    return Reference(
        probabilities,
        f"1-2-grams, C={best:g} tuned",
        [({"C": strength}, value) for strength, value in reached.items()],
        {"C": best},
    )


def _documents(split: Split) -> list[str]:
    return ["\n".join(texts) for texts in split.texts]


REFERENCES: dict[str, Callable[[Examples], Reference]] = {
    "majority_class": majority_class,
    "tf_idf_logistic_regression": tf_idf_logistic_regression,
}
