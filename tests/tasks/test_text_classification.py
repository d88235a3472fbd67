"""From a task's keys and its files to examples, or to one message that says what to do."""

import pandas
import pytest
from pydantic import ValidationError

from pewb.errors import InputError
from pewb.tasks import TextClassification, decode_task, read_examples
from tests.tasks.conftest import ROWS, csv_of, jsonl_of


def test_a_file_of_the_shape_of_sst2(write, read):
    lines = "one long string of cliches\t0\nsaid `` no '' twice\t1\nit 's \"fine\t1\n"
    write(train__tsv=lines, validation__tsv=lines, test__tsv=lines)
    keys = {"train": "train.tsv", "validation": "validation.tsv", "test": "test.tsv"}
    examples = read(**keys, text=0, label=1, header=False, labels=["negative", "positive"])
    assert examples.labels == ["negative", "positive"]
    assert examples.test.texts[2] == ("it 's \"fine",)
    assert examples.test.labels == [0, 1, 1]


def test_pairs(write, read):
    rows = [("it rains", "it is wet", "yes"), ("it rains", "it is dry", "no")]
    content = csv_of(rows, ("premise", "hypothesis", "gold"))
    write(train__csv=content, validation__csv=content, test__csv=content)
    examples = read(text=["premise", "hypothesis"], label="gold")
    assert examples.train.texts == [("it rains", "it is wet"), ("it rains", "it is dry")]
    assert examples.labels == ["no", "yes"]
    assert examples.train.labels == [1, 0]


@pytest.mark.parametrize(
    "values",
    [("0", "1"), ("0.0", "1.0"), (" 0 ", "1"), (0, 1), (0.0, 1.0), (False, True)],
)
def test_labels_that_are_numbers(write, read, values):
    rows = [(text, values[int(label)]) for text, label in ROWS[:8]]
    write(**{f"{name}__jsonl": jsonl_of(rows) for name in ("train", "validation", "test")})
    files = {name: f"{name}.jsonl" for name in ("train", "validation", "test")}
    assert read(**files).labels == ["0", "1"]
    named = read(**files, labels=["bad", "good"])
    assert named.labels == ["bad", "good"]
    assert named.train.labels == [int(label) for _, label in ROWS[:8]]


def test_booleans_and_floats_of_parquet_are_the_numbers_of_csv(tmp_path, write, read):
    frame = pandas.DataFrame({"text": [text for text, _ in ROWS[:8]], "label": [label == "1" for _, label in ROWS[:8]]})
    frame.to_parquet(tmp_path / "train.parquet")
    frame.assign(label=frame["label"].astype(float)).to_parquet(tmp_path / "validation.parquet")
    write(test__csv=csv_of(ROWS[:8]))
    examples = read(train="train.parquet", validation="validation.parquet")
    assert examples.labels == ["0", "1"]
    assert examples.train.labels == examples.validation.labels == examples.test.labels


def test_names_are_sorted_as_numbers_or_as_words(three_files, read):
    three_files([(f"text {number}", number) for number in (10, 2, -1, 2)])
    assert read().labels == ["-1", "2", "10"]
    three_files([("one", " b "), ("two", "a"), ("three", "b")])
    assert read().labels == ["a", "b"]


def test_names_of_classes_win_over_numbers(three_files, read):
    three_files([("one", "1"), ("two", "0")])
    examples = read(labels=["1", "0"])
    assert examples.labels == ["1", "0"]
    assert examples.train.labels == [0, 1]


def test_ratings_become_two_classes(three_files, read):
    three_files([("one", "-2"), ("two", "-.4"), ("three", "0"), ("four", ".5"), ("five", "3")])
    examples = read(binarize={"margin": 0.5}, labels=["negative", "positive"])
    assert [text for (text,) in examples.train.texts] == ["one", "four", "five"]
    assert examples.train.labels == [0, 1, 1]


def test_a_text_in_train_and_test_is_told(three_files, read):
    three_files(ROWS[:8], test=[*ROWS[8:12], ("A  different text", "0"), (f" {ROWS[0][0]}\n", "1")])
    assert read().warnings == ["1 of 6 test examples have the same text as a training example"]


def test_a_class_without_an_example_is_told(three_files, read):
    three_files([("one", "a"), ("two", "b")], test=[("three", "a")])
    assert read(labels=["a", "b", "c"]).warnings == [
        "the training split has no example of c",
        "the test split has no example of b, c",
    ]


def test_facts(three_files, read):
    three_files(ROWS[:8], test=ROWS[8:11])
    facts = read().facts()
    assert facts["majority_share"] == 2 / 3
    assert (facts["train_examples"], facts["validation_examples"], facts["test_examples"]) == (8, 8, 3)
    assert facts["test_digest"] != read({"test": 2}).facts()["test_digest"]


FAULTS = {
    "empty": ({"train": []}, {}, "task.train: the train split is empty"),
    "empty test": ({"test": []}, {}, "task.test: the test split is empty"),
    "one class": (
        {"train": [("one", 1), ("two", 1)], "validation": [("x", 1)], "test": [("x", 1)]},
        {},
        "every one of the 2 training examples has the label '1'",
    ),
    "hidden labels": (
        {"test": [("one", -1), ("two", -1)]},
        {},
        "task.test: every test label is -1, so they are hidden",
    ),
    "unknown label": (
        {
            "test": [("one", "positve")],
            "train": [("a", "positive"), ("b", "negative")],
            "validation": [("a", "positive")],
        },
        {},
        r"label 'positve', which the training examples do not have \(did you mean 'positive'",
    ),
    "text is label": ({}, {"labels": ["a", "b"], "label": "text"}, "text and label are the same"),
    "number beyond names": (
        {"test": [("one", 2)]},
        {"labels": ["a", "b"]},
        "the test split has the label '2', which task.labels do not have",
    ),
    "no text": (
        {"train": [("one", 1), ("", 0), ("two", 0)]},
        {},
        r"task.text: train.csv has 1 rows without a text \(the first is row 2\)",
    ),
    "blank text": ({"train": [("one", 1), (" \n", 0), ("two", 0)]}, {}, "rows without a text"),
    "no label": (
        {"validation": [("one", 1), ("x", ""), ("y", " ")]},
        {},
        r"task.label: validation.csv has 2 rows without a label \(the first is row 2\)",
    ),
    "fractions": ({"train": [("one", 1.5), ("two", 0)]}, {}, "labels such as 1.5, which are no classes; task.binarize"),
    "words as ratings": (
        {"train": [("one", "good"), ("two", 0)]},
        {"binarize": {}},
        "ratings that are no numbers, such as 'good'",
    ),
    "nothing left": (
        {"test": [("one", 0.1)], "train": [("a", 2), ("b", -2)], "validation": [("c", 2)]},
        {"binarize": {"margin": 1}},
        "test split is empty; does task.binarize leave",
    ),
    "text as label": (
        {"train": [(f"text {n}", f"text {n}") for n in range(30)]},
        {},
        "has 30 different values in 30 examples; it does not look like a label",
    ),
    "no such column": ({}, {"label": "labl"}, r"task.label: train.csv has no column 'labl' \(did you mean 'label'"),
    "header as data": (
        {},
        {"header": False, "text": 0, "label": 1},
        "the label 'label' in its first row and numbers in all others.*header = true",
    ),
    "too few to carve": (
        {"train": ROWS[:2]},
        {"validation": None},
        "validation split is empty: too few different texts",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_data_is_one_message(three_files, read, fault):
    rows, keys, message = FAULTS[fault]
    three_files(ROWS[:8], **rows)
    with pytest.raises((InputError, ValidationError), match=message):
        read(**keys)


def test_too_few_to_divide(write, read):
    write(all__csv=csv_of(ROWS[:2]))
    with pytest.raises(InputError, match="split is empty: too few different texts to divide"):
        read(data="all.csv")


def test_a_limit_that_leaves_one_class(three_files, read):
    three_files()
    with pytest.raises(InputError, match=r"every one of the 1 training examples has the label .*raise limit.train"):
        read({"train": 1})


def test_lists_are_no_text(write, read):
    content = '{"text": ["a", "b"], "label": 0}\n{"text": "c", "label": 1}\n'
    write(train__jsonl=content, test__csv=csv_of(ROWS[:4]), validation__csv=csv_of(ROWS[:4]))
    with pytest.raises(
        InputError, match=r"task.text: train.jsonl holds lists in the column 'text' \(the first in row 1\)"
    ):
        read(train="train.jsonl")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data": "a.csv", "test": "b.csv"}, "give either data"),
        ({"train": "a.csv"}, "'test' is missing"),
        ({"test": "a.csv"}, "'train' is missing"),
        ({"dataset": "org/name"}, "'train' is missing.*inside 'org/name'"),
        ({"data": "a.csv", "text": []}, "text names 0 columns"),
        ({"data": "a.csv", "text": ["a", "b", "c"]}, "text names 3 columns"),
        ({"data": "a.csv", "labels": ["a"]}, "at least 2"),
        ({"data": "a.csv", "labels": ["a", "a"]}, "names a class twice"),
        ({"data": "a.csv", "labels": ["a", "b", "c"], "binarize": {}}, "makes two classes, but labels names 3"),
        ({"train": "a.csv", "test": "b.csv", "split": {}}, "split divides one file"),
        ({"data": "a.csv", "split": {"test": 0}}, "greater than 0"),
        ({"data": "a.csv", "lable": "x"}, "lable"),
    ],
)
def test_keys_that_make_no_sense(keys, message):
    with pytest.raises(ValidationError, match=message):
        TextClassification(**keys)


@pytest.mark.parametrize("keys", [{}, {"labels": ["a", "b"]}])
def test_a_table_without_files_can_be_planned_and_not_read(keys, tmp_path):
    task = TextClassification(**keys)
    assert task.missing_files().startswith("'train' is missing: give train and test files")
    with pytest.raises(InputError, match="task: 'train' is missing: give train and test files"):
        read_examples(task, tmp_path, {})
    assert TextClassification(data="a.csv").missing_files() is None


@pytest.mark.assets
def test_the_movie_snippets():
    from pewb.assets import fetch, tasks
    from pewb.tasks import read_examples

    folder = fetch("task", "movie-snippets").folder
    examples = read_examples(decode_task(tasks()["movie-snippets"].spec), folder, {})
    splits = (examples.train, examples.validation, examples.test)
    assert [len(split) for split in splits] == [8017, 1024, 1031]
    labels = [label for split in splits for label in split.labels]
    assert (labels.count(0), labels.count(1)) == (5076, 4996)
    assert examples.labels == ["negative", "positive"]
    assert not examples.warnings
    assert examples.facts()["test_digest"] == "fb9c95cc448bba9e907e8d8f6c95bbd0918035f6ab58bd9fad7522a0cf6d2457"


def test_spellings_of_a_number_are_one_class_only_where_they_mean_one(tmp_path, read):
    from pewb.tasks.text_classification import _whole

    assert [_whole(label) for label in ("1.0", "1", " 1. ", "01", 1, 1.0, True)] == ["1", "1", "1", "01", "1", "1", "1"]
