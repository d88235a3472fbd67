"""Splitting by a hash: independent of order, equal texts together, the promised shares."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pewb.tasks.splits import share_of, text_key
from tests.tasks.conftest import csv_of

WORDS = st.text(alphabet="abc é\t\n", min_size=1, max_size=12)


@given(st.lists(WORDS, min_size=1, max_size=2))
def test_a_key_falls_somewhere_between_nought_and_one(texts):
    assert 0 <= share_of(text_key(texts)) < 1


@given(WORDS)
def test_a_key_is_blind_to_white_space_and_unicode_form(text):
    decomposed = text.replace("é", "e\u0301")
    assert text_key([text]) == text_key([f"  {decomposed}\n"])


@given(WORDS, WORDS)
def test_the_two_texts_of_a_pair_are_not_one(first, second):
    assert text_key([first, second]) != text_key([f"{first} {second}"])


def parts(examples):
    return [
        dict(zip(part.texts, part.labels, strict=True)) for part in (examples.train, examples.validation, examples.test)
    ]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_the_file_does_not_matter(tmp_path_factory, seed):
    from pewb.tasks import TextClassification, read_examples

    folder = tmp_path_factory.mktemp("order")
    rows = [(f"film {number}", number % 2) for number in range(80)]
    shuffled = random.Random(seed).sample(rows, len(rows))
    found = []
    for name, order in (("a.csv", rows), ("b.csv", shuffled)):
        (folder / name).write_text(csv_of(order))
        found.append(parts(read_examples(TextClassification(data=name), folder, {"train": 20, "test": 3})))
    assert found[0] == found[1]


def test_shares_are_kept_and_nothing_is_lost(write, read):
    rows = [(f"sentence number {number}", number % 2) for number in range(4000)]
    write(all__csv=csv_of(rows))
    examples = read(data="all.csv")
    sizes = [len(examples.train), len(examples.validation), len(examples.test)]
    assert sum(sizes) == 4000
    for size, share in zip(sizes, (0.8, 0.1, 0.1), strict=True):
        assert abs(size / 4000 - share) < 0.015
    thirds = read(data="all.csv", split={"train": 1, "validation": 1, "test": 1})
    assert all(abs(len(part) / 4000 - 1 / 3) < 0.03 for part in (thirds.train, thirds.validation, thirds.test))


def test_equal_texts_stay_together(write, read):
    rows = [(f"{' ' * (copy % 3)}sentence  {number}", number % 2) for number in range(60) for copy in range(4)]
    write(all__csv=csv_of(rows))
    examples = read(data="all.csv")
    keys = [{text_key(texts) for texts in part.texts} for part in (examples.train, examples.validation, examples.test)]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    assert not examples.warnings


def test_validation_is_carved_from_train_where_none_is_given(write, read):
    rows = [(f"sentence number {number}", number % 2) for number in range(1000)]
    write(train__csv=csv_of(rows), test__csv=csv_of([("one", 0), ("two", 1)]))
    examples = read(validation=None)
    assert abs(len(examples.validation) - 100) < 30
    assert len(examples.train) + len(examples.validation) == 1000
    assert len(examples.test) == 2


@pytest.mark.parametrize("count", [1, 7, 20, 40, 100])
def test_a_smaller_limit_is_a_subset_in_the_same_order(three_files, read, count):
    from tests.tasks.conftest import ROWS

    three_files(ROWS)
    whole, part, more = (read({"test": limit}).test for limit in (None, count, count + 1))
    assert len(part) == min(count, 40)
    assert set(part.texts) <= set(more.texts) <= set(whole.texts)
    assert part.texts == [text for text in whole.texts if text in set(part.texts)]
    assert all(
        whole.labels[whole.texts.index(text)] == label for text, label in zip(part.texts, part.labels, strict=True)
    )
