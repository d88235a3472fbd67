"""Metrics against scikit-learn and statsmodels-free arithmetic; intervals that cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from pewb.evaluation.intervals import proportion
from pewb.evaluation.metrics import classification_metrics, confusion, language_metrics

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_values_are_scikit_learns(num_classes):
    truth = GENERATOR.integers(0, num_classes, 200).tolist()
    guess = [label if GENERATOR.random() < 0.7 else int(GENERATOR.integers(num_classes)) for label in truth]
    measured = classification_metrics(truth, guess, num_classes)
    average = "binary" if num_classes == 2 else "macro"
    assert measured["accuracy"].value == pytest.approx(accuracy_score(truth, guess))
    assert measured["f1"].value == pytest.approx(f1_score(truth, guess, average=average))
    assert measured["matthews_correlation"].value == pytest.approx(matthews_corrcoef(truth, guess))
    for metric in measured.values():
        assert metric.low < metric.value < metric.high


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=3, max_size=40))
def test_the_bootstrapped_formulas_are_scikit_learns(pairs):
    from pewb.evaluation import metrics

    truth, guess = zip(*pairs, strict=True)
    counts = np.asarray(confusion(truth, guess, ["a", "b", "c"]).counts)[None]
    assert metrics._matthews_correlation(counts)[0] == pytest.approx(matthews_corrcoef(truth, guess), abs=1e-9)
    assert metrics._macro_f1(counts)[0] == pytest.approx(f1_score(truth, guess, average="macro", zero_division=0.0))


def test_bootstrap_interval_is_that_of_resampled_examples():
    truth = GENERATOR.integers(0, 2, 300)
    guess = np.where(GENERATOR.random(300) < 0.8, truth, 1 - truth)
    measured = classification_metrics(truth.tolist(), guess.tolist(), 2)["matthews_correlation"]
    draws = [GENERATOR.integers(0, 300, 300) for _ in range(1000)]
    low, high = np.quantile([matthews_corrcoef(truth[one], guess[one]) for one in draws], [0.025, 0.975])
    assert (measured.low, measured.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


def test_wilson_interval_of_a_published_example():
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662."""
    interval = proportion(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)


def test_one_class_only_is_no_error():
    measured = classification_metrics([0, 1, 0, 1], [0, 0, 0, 0], 2)
    assert measured["matthews_correlation"].value == 0
    assert measured["f1"].value == 0


def test_confusion_rows_are_true_classes():
    assert confusion([0, 0, 1], [1, 0, 1], ["n", "p"]).counts == [[1, 1], [0, 1]]


def test_the_loss_of_tokens_is_bootstrapped_over_examples():
    rng = np.random.default_rng(1)
    tokens = rng.integers(1, 30, 200)
    losses = tokens * rng.normal(2.0, 0.5, 200)
    found = language_metrics(losses.tolist(), tokens.tolist())
    assert found["loss"].value == pytest.approx(losses.sum() / tokens.sum())
    drawn = rng.integers(0, 200, (2000, 200))
    low, high = np.quantile(losses[drawn].sum(1) / tokens[drawn].sum(1), [0.025, 0.975])
    assert (found["loss"].low, found["loss"].high) == pytest.approx((low, high), abs=0.02)
    assert found["perplexity"].high == pytest.approx(np.exp(found["loss"].high))
    assert found == language_metrics(losses.tolist(), tokens.tolist()), "the draws are seeded"


def test_a_perplexity_beyond_all_numbers_is_left_out():
    assert set(language_metrics([2000.0, 3000.0], [1, 1])) == {"loss"}
    assert language_metrics([2.0, 0.0], [1, 0])["loss"].value == 2.0, "an example without targets counts for nothing"
