"""References: what they predict, and that no test label reaches them."""

import numpy as np
import pytest

from pewb.errors import TrainingError
from pewb.references import REFERENCES
from pewb.tasks import Examples, Split, TextClassification
from tests.conftest import SENTENCES

LABELS = ["negative", "neither", "positive"]


def _split(sentences):
    return Split([(text,) for text, _ in sentences], [LABELS.index(label) for _, label in sentences])


@pytest.fixture
def examples():
    return Examples(LABELS, _split(SENTENCES * 3 + SENTENCES[:1]), _split(SENTENCES), _split(SENTENCES), [])


@pytest.mark.parametrize("name", TextClassification.references)
def test_probabilities_are_of_every_class_even_one_without_training_examples(examples, name):
    reference = REFERENCES[name](TextClassification(), examples)
    assert reference.predictions.probabilities.shape == (12, 3)
    assert reference.predictions.probabilities.sum(1) == pytest.approx(np.ones(12))
    assert (reference.predictions.probabilities[:, 1] == 0).all()


def test_the_majority_is_that_of_training(examples):
    reference = REFERENCES["majority_class"](TextClassification(), examples)
    assert reference.predictions.predicted == [2] * 12
    assert (reference.settings, reference.trials) == ("always 'positive'", [])


def test_the_regression_learns_what_a_word_decides(examples):
    reference = REFERENCES["tf_idf_logistic_regression"](TextClassification(), examples)
    assert reference.predictions.probabilities.argmax(1).tolist() == examples.test.labels
    assert len(reference.trials) == 5
    best = max(value for _, value in reference.trials)
    assert reference.chosen == next(values for values, value in reference.trials if value == best)
    assert reference.settings == f"1-2-grams, C={reference.chosen['C']:g} tuned"


def test_what_is_searched_is_the_tasks_own_metric():
    """Weak regressions say what is frequent, which is accurate; Matthews sees nothing in it."""
    rare = [("good", 1)] * 2 + [("dull", 1)] + [("dull", 0)] * 30
    split = Split([(text,) for text, _ in rare], [label for _, label in rare])
    found = REFERENCES["tf_idf_logistic_regression"](
        TextClassification(metric="matthews_correlation"), Examples(["no", "yes"], split, split, split, [])
    )
    reached = {values["C"]: value for values, value in found.trials}
    assert reached[0.1] == 0, "where its accuracy is 0.91"
    assert reached[found.chosen["C"]] == pytest.approx(0.80, abs=0.01)


def test_both_texts_of_a_pair_are_read():
    pairs = Split([("same", "good film"), ("same", "bad film")] * 6, [1, 0] * 6)
    reference = REFERENCES["tf_idf_logistic_regression"](
        TextClassification(), Examples(["no", "yes"], pairs, pairs, pairs, [])
    )
    assert reference.predictions.probabilities.argmax(1).tolist() == pairs.labels


def test_texts_without_words_have_nothing_to_weigh():
    marks = Split([("!!!",), ("?",)] * 3, [0, 1] * 3)
    with pytest.raises(TrainingError, match="no training text has a word in it"):
        REFERENCES["tf_idf_logistic_regression"](TextClassification(), Examples(["a", "b"], marks, marks, marks, []))


@pytest.mark.assets
def test_references_on_real_sentences():
    from pewb.assets import fetch, tasks
    from pewb.tasks import decode_task, read_examples

    spec = decode_task(tasks()["movie-snippets"].spec)
    examples = read_examples(spec, fetch("task", "movie-snippets").folder, {})
    reached = {
        name: REFERENCES[name](spec, examples).predictions.metrics()["accuracy"].value for name in spec.references
    }
    assert reached["majority_class"] == pytest.approx(0.4927, abs=1e-4)
    assert reached["tf_idf_logistic_regression"] == pytest.approx(0.8235, abs=0.01)
