"""What each example adds to a metric gives the metric again, of the table that is written."""

import numpy as np
import pytest
import torch

from pewb.evaluation.paired import BOOTSTRAP, BOOTSTRAP_OF_EXAMPLES, Predictor, SeedNoise, paired_test
from pewb.evaluation.parts import LABELS, is_tested, mean, parts_of, ratio
from pewb.heads.choices import ChoicePredictions
from pewb.heads.classes import ClassPredictions
from pewb.heads.multi_label import SetPredictions
from pewb.heads.number import NumberPredictions
from pewb.heads.spans import SpanPredictions
from pewb.heads.tokens import TokenLosses
from pewb.heads.words import TagPredictions

NUM = 200
GENERATOR = np.random.default_rng(0)
NAMES = ["a", "b, or c", "c"]
TAGS = ["O", "B-X", "I-X", "B-Y"]


def drawn_tags():
    return [GENERATOR.integers(4, size=5).tolist() for _ in range(NUM)]


def classes(names):
    probabilities = torch.from_numpy(GENERATOR.dirichlet(np.ones(len(names)), NUM))
    return ClassPredictions(probabilities, GENERATOR.integers(len(names), size=NUM).tolist(), names)


def made():
    numbers = GENERATOR.normal(size=(2, NUM))
    choices = [torch.from_numpy(one) for one in GENERATOR.random((NUM, 3))]
    sets = torch.from_numpy(GENERATOR.random((NUM, 3)))
    answers = [[(0, "a good film")] if place % 3 else [] for place in range(NUM)]
    spans = GENERATOR.choice(["a good film", "film", "plot"], NUM).tolist()
    losses = torch.from_numpy(GENERATOR.random(NUM) * 30)
    return [
        (classes(NAMES), ("accuracy", "f1", "matthews_correlation")),
        (classes(["no", "yes"]), ("accuracy", "f1", "matthews_correlation")),
        (
            SetPredictions(sets, torch.from_numpy(GENERATOR.integers(2, size=(NUM, 3))), NAMES),
            ("f1_micro", "f1_macro", "accuracy"),
        ),
        (NumberPredictions(numbers[0].tolist(), (numbers[0] + numbers[1]).tolist()), ("pearson",)),
        (TagPredictions(drawn_tags(), drawn_tags(), TAGS), ("f1",)),
        (SpanPredictions(spans, GENERATOR.normal(size=NUM), answers, 0.0), ("f1",)),
        (ChoicePredictions(choices, choices, GENERATOR.integers(3, size=NUM).tolist()), ("accuracy_normalised",)),
        (TokenLosses(losses, GENERATOR.integers(1, 9, size=NUM).tolist()), ("loss",)),
    ]


@pytest.mark.parametrize(("predictions", "metrics"), [pytest.param(*one, id=type(one[0]).__name__) for one in made()])
def test_the_written_table_gives_the_metric_again(predictions, metrics):
    table = predictions.table()
    columns = dict(zip(table.columns, zip(*table.rows, strict=True), strict=True))
    assert len(set(LABELS) & set(columns)) == 1
    for metric in metrics:
        assert is_tested(metric)
        parts = parts_of(metric, columns)
        assert len(parts.values) == NUM
        assert float(parts.measure(parts.values.mean(0))) == pytest.approx(
            predictions.metrics()[metric].value, abs=1e-5
        )
        of_many = parts.measure(np.stack([parts.values.mean(0)] * 6).reshape(2, 3, -1))
        assert of_many == pytest.approx(np.full((2, 3), predictions.metrics()[metric].value), abs=1e-5)


def test_a_class_that_is_none_is_told():
    with pytest.raises(ValueError, match="is no class"):
        parts_of("f1_micro", {"labels": ["a"], "predicted": ["x"], "p(a)": ["1"]})
    with pytest.raises(KeyError):
        parts_of("loss", {"labels": ["a"]})
    assert not is_tested("spearman") and not is_tested(None)


def of_numbers(numbers, noise=None):
    return Predictor(np.asarray(numbers, float)[:, None, None], noise, mean)


def test_single_runs_of_numbers_are_tested_over_the_examples():
    from scipy.stats import ttest_rel

    one = GENERATOR.normal(size=400)
    for shift in (0.0, 0.12, 0.3):
        other = one + shift + GENERATOR.normal(size=400)
        test, exact = paired_test(of_numbers(one), of_numbers(other)), ttest_rel(one, other)
        interval = exact.confidence_interval()
        assert test.test == BOOTSTRAP_OF_EXAMPLES
        assert (test.low, test.high) == pytest.approx((interval.low, interval.high), abs=0.02)
        assert test.p_value == pytest.approx(exact.pvalue, abs=0.04)
    assert paired_test(of_numbers(one, SeedNoise(0.01, 4)), of_numbers(other, SeedNoise(0.01, 4))).test == BOOTSTRAP


def test_a_loss_is_over_tokens_whatever_the_texts_lengths():
    tokens = GENERATOR.integers(1, 50, size=300)
    losses = np.stack([tokens * 2.0, tokens * 1.9], axis=1)
    one, other = (Predictor(np.stack([losses[:, place], tokens], axis=1)[:, None], None, ratio) for place in (0, 1))
    test = paired_test(one, other)
    assert (test.difference, test.low, test.high) == pytest.approx((0.1, 0.1, 0.1))
    assert test.p_value < 0.001
