"""Limits: of each class the same share, and fewer examples are a part of more."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pewb.tasks import Split


def split_of(labels):
    return Split([(f"text {number}",) for number in range(len(labels))], labels)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 60), st.integers(1, 60))
def test_shares_are_kept_and_samples_are_nested(labels, few, many):
    split = split_of(labels)
    few, many = min(few, many), max(few, many)
    small, large = split.limited(few, lambda label: label), split.limited(many, lambda label: label)
    assert len(small) == min(few, len(split))
    assert set(small.texts) <= set(large.texts)
    counts = Counter(small.labels)
    for label, count in Counter(labels).items():
        assert abs(counts[label] - len(small) * count / len(labels)) <= len(set(labels)) / 2 + 0.5


def test_the_order_of_the_file_does_not_matter():
    labels = [number % 3 for number in range(30)]
    split = split_of(labels)
    back = Split(split.texts[::-1], split.labels[::-1])
    chosen = split.limited(10, lambda label: label)
    assert sorted(back.limited(10, lambda label: label).texts) == sorted(chosen.texts)
    assert chosen.texts == sorted(chosen.texts, key=split.texts.index)


def test_without_labels_it_is_the_hash_alone():
    split = Split([(f"text {number}",) for number in range(30)])
    assert len(split.limited(7)) == 7
