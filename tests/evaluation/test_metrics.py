"""Metrics against scikit-learn and statsmodels-free arithmetic; intervals that cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, roc_auc_score

from pewb.evaluation.formulas import macro_f1, matthews_correlation
from pewb.evaluation.intervals import proportion
from pewb.evaluation.metrics import (
    classification_metrics,
    confusion,
    language_metrics,
    multi_label_metrics,
    regression_metrics,
    tag_metrics,
)

GENERATOR = np.random.default_rng(0)


def scores_for(guess, num_classes):
    """Return probabilities, some of them equal, of which those of `guess` are the greatest."""
    scores = GENERATOR.integers(1, 9, (len(guess), num_classes)) / 10.0
    scores[np.arange(len(guess)), guess] = 1.0
    return scores / scores.sum(1, keepdims=True)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_values_are_scikit_learns(num_classes):
    truth = GENERATOR.integers(0, num_classes, 200).tolist()
    guess = [label if GENERATOR.random() < 0.7 else int(GENERATOR.integers(num_classes)) for label in truth]
    measured = classification_metrics(truth, guess, scores_for(guess, num_classes))
    average = "binary" if num_classes == 2 else "macro"
    assert measured["accuracy"].value == pytest.approx(accuracy_score(truth, guess))
    assert measured["f1"].value == pytest.approx(f1_score(truth, guess, average=average))
    assert measured["matthews_correlation"].value == pytest.approx(matthews_corrcoef(truth, guess))
    for metric in measured.values():
        assert metric.low < metric.value < metric.high


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=3, max_size=40))
def test_the_bootstrapped_formulas_are_scikit_learns(pairs):
    truth, guess = zip(*pairs, strict=True)
    counts = np.asarray(confusion(truth, guess, ["a", "b", "c"]).counts)[None]
    assert matthews_correlation(counts)[0] == pytest.approx(matthews_corrcoef(truth, guess), abs=1e-9)
    assert macro_f1(counts)[0] == pytest.approx(f1_score(truth, guess, average="macro", zero_division=0.0))


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_area_under_the_curve_is_scikit_learns_with_ties(num_classes):
    truth = GENERATOR.integers(0, num_classes, 300)
    guess = np.where(GENERATOR.random(300) < 0.4, truth, GENERATOR.integers(0, num_classes, 300))
    scores = scores_for(guess, num_classes)
    measured = classification_metrics(truth.tolist(), guess.tolist(), scores)["auroc"]
    reference = (
        roc_auc_score(truth, scores[:, 1]) if num_classes == 2 else roc_auc_score(truth, scores, multi_class="ovr")
    )
    assert measured.value == pytest.approx(reference)
    assert measured.low < measured.value < measured.high
    if num_classes == 2:
        draws = [GENERATOR.integers(0, 300, 300) for _ in range(1000)]
        low, high = np.quantile([roc_auc_score(truth[one], scores[one, 1]) for one in draws], [0.025, 0.975])
        assert (measured.low, measured.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


def test_of_a_split_with_one_class_there_is_no_curve():
    assert "auroc" not in classification_metrics([1, 1], [1, 0], np.array([[0.2, 0.8], [0.6, 0.4]]))


def test_sets_of_classes_are_judged_as_scikit_learn_does():
    truth = (GENERATOR.random((200, 5)) < [0.5, 0.3, 0.1, 0.02, 0]).astype(int)
    scores = np.clip(truth * 0.3 + GENERATOR.random((200, 5)) * 0.7, 0, 1)
    guess = (scores > 0.5).astype(int)
    measured = multi_label_metrics(truth, guess, scores)
    for average in ("micro", "macro"):
        assert measured[f"f1_{average}"].value == pytest.approx(
            f1_score(truth, guess, average=average, zero_division=0)
        )
    assert measured["accuracy"].value == pytest.approx(accuracy_score(truth, guess))
    seen = truth.any(0)
    assert measured["auroc"].value == pytest.approx(roc_auc_score(truth[:, seen], scores[:, seen], average="macro"))
    assert all(metric.low <= metric.value <= metric.high for metric in measured.values())


def test_numbers_are_judged_as_scipy_does():
    from scipy.stats import pearsonr, spearmanr

    truth = GENERATOR.normal(1e4, 3.0, 150).round(1)
    guess = truth + GENERATOR.normal(0, 3.0, 150)
    measured = regression_metrics(truth.tolist(), guess.tolist())
    assert measured["pearson"].value == pytest.approx(pearsonr(truth, guess)[0])
    assert measured["spearman"].value == pytest.approx(spearmanr(truth, guess)[0])
    assert measured["mean_squared_error"].value == pytest.approx(((truth - guess) ** 2).mean())
    assert all(metric.low < metric.value < metric.high for metric in measured.values())
    low, high = pearsonr(truth, guess).confidence_interval()
    assert (measured["pearson"].low, measured["pearson"].high) == (
        pytest.approx(low, abs=0.03),
        pytest.approx(high, abs=0.03),
    )
    constant = regression_metrics(truth.tolist(), [3.0] * 150)
    assert (constant["pearson"].value, constant["spearman"].value) == (0, 0)


SENTENCES_OF_TAGS = [
    (["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "I-PER", "O", "B-LOC"]),
    (["O", "B-ORG", "I-ORG", "I-ORG"], ["O", "B-ORG", "I-ORG", "O"]),
    (["B-PER", "B-PER", "O", "O"], ["B-PER", "I-PER", "O", "B-MISC"]),
    (["O", "I-LOC", "I-LOC", "O"], ["O", "B-LOC", "I-LOC", "O"]),
    (["O", "O"], ["O", "O"]),
]


def test_tags_are_judged_as_seqeval_does():
    from seqeval.metrics import classification_report, f1_score, precision_score, recall_score

    truth, guess = map(list, zip(*SENTENCES_OF_TAGS, strict=True))
    measured = tag_metrics(truth, guess)
    for name, reference in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert measured[name].value == pytest.approx(reference(truth, guess))
    report = classification_report(truth, guess, output_dict=True, zero_division=0)
    for kind in ("PER", "LOC", "ORG"):
        assert measured[f"f1({kind})"].value == pytest.approx(report[kind]["f1-score"])
    assert measured["accuracy"].value == pytest.approx(14 / 18)
    assert all(metric.low <= metric.value <= metric.high for metric in measured.values())


def test_tags_that_are_no_parts_count_word_by_word():
    measured = tag_metrics([["B_PER", "I_PER", "O"]], [["B_PER", "O", "O"]])
    assert measured == tag_metrics([["B-PER", "I-PER", "O"]], [["B-PER", "O", "O"]])
    measured = tag_metrics([["DET", "NOUN", "O"]], [["DET", "VERB", "O"]])
    assert measured["f1"].value == pytest.approx(0.5)
    assert measured["accuracy"].value == pytest.approx(2 / 3)


def test_bootstrap_interval_is_that_of_resampled_examples():
    truth = GENERATOR.integers(0, 2, 300)
    guess = np.where(GENERATOR.random(300) < 0.8, truth, 1 - truth)
    measured = classification_metrics(truth.tolist(), guess.tolist(), scores_for(guess, 2))["matthews_correlation"]
    draws = [GENERATOR.integers(0, 300, 300) for _ in range(1000)]
    low, high = np.quantile([matthews_corrcoef(truth[one], guess[one]) for one in draws], [0.025, 0.975])
    assert (measured.low, measured.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


def test_wilson_interval_of_a_published_example():
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662."""
    interval = proportion(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)


def test_one_class_only_is_no_error():
    measured = classification_metrics([0, 1, 0, 1], [0, 0, 0, 0], np.tile([0.9, 0.1], (4, 1)))
    assert measured["matthews_correlation"].value == 0
    assert measured["f1"].value == 0
    assert measured["auroc"].value == 0.5


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
