"""Altered copies: seeded, of training alone, and with labels that stay true."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pewb.errors import InputError
from pewb.tasks import CausalLm, Examples, ExtractiveQa, Split, TextClassification, TokenClassification
from pewb.tasks.augment import Alteration, alter, altered_text, augmented

EVERYTHING = Alteration(word_dropout=0.3, swap=0.5, noise=0.5)
WORDS = st.lists(st.sampled_from(["good", "not", "film", "don't", "7", "never", "the"]), max_size=12)


@given(WORDS, st.integers(0, 1000))
def test_negations_and_numbers_stay_as_they_are(words, seed):
    made = alter(words, EVERYTHING, random.Random(seed))
    kept = [word for word in words if word in ("not", "don't", "7", "never")]
    assert [word for place, word in made if words[place] in ("not", "don't", "7", "never")] == kept
    assert bool(made) == bool(words)


def test_each_alteration_does_what_it_says():
    words = [f"word{letter}" for letter in "abcdefghij"]
    generator = random.Random(0)
    dropped = [word for _, word in alter(words, Alteration(word_dropout=0.5), generator)]
    assert 0 < len(dropped) < 10 and dropped == sorted(dropped)
    swapped = [word for _, word in alter(words, Alteration(swap=1.0), generator)]
    assert sorted(swapped) == words and swapped[:2] == words[1::-1]
    noisy = [word for _, word in alter(words, Alteration(noise=1.0), generator)]
    assert len(noisy) == 10 and sum(one != other for one, other in zip(noisy, words, strict=True)) > 7


def test_what_stands_between_words_stays():
    prompt = "Question: why is the sky blue?\n\nAnswer: "
    generator = random.Random(0)
    assert altered_text(prompt, Alteration(word_dropout=1e-9), generator) == prompt
    assert altered_text("  a b\n", Alteration(swap=1.0), generator) == "  b a\n"
    for _ in range(20):
        assert altered_text(prompt, EVERYTHING, generator).count("\n\n") <= 1
    assert altered_text("", EVERYTHING, generator) == ""


def examples_of(texts, labels, names=()):
    train = Split(texts, labels)
    return Examples(list(names), train, train, train, [])


def test_copies_come_after_the_examples_and_only_in_training():
    examples = examples_of([("a very good film",), ("a dull plot and a bad cast",)], [1, 0], ["bad", "good"])
    made = augmented(TextClassification(), examples, EVERYTHING, copies=3, seed=0)
    assert made.train.texts[:2] == examples.train.texts
    assert 2 < len(made.train) <= 8
    assert len(set(made.train.texts)) == len(made.train)
    assert made.validation == examples.validation and made.test == examples.test
    for texts, label in zip(made.train.texts[2:], made.train.labels[2:], strict=True):
        assert label in (0, 1) and texts not in examples.train.texts
    again = augmented(TextClassification(), examples, EVERYTHING, copies=3, seed=0)
    other = augmented(TextClassification(), examples, EVERYTHING, copies=3, seed=1)
    assert again.train == made.train != other.train


def test_tagged_words_stay_with_their_tags():
    words, tags = ("we", "met", "Ann", "Lee", "in", "old", "Rome"), [0, 0, 1, 2, 0, 0, 1]
    examples = examples_of([words], [tags], ["O", "B-X", "I-X"])
    made = augmented(TokenClassification(), examples, EVERYTHING, copies=20, seed=0)
    assert len(made.train) > 5
    for texts, told in zip(made.train.texts, made.train.labels, strict=True):
        assert len(texts) == len(told)
        assert [word for word, tag in zip(texts, told, strict=True) if tag] == ["Ann", "Lee", "Rome"]
        place = texts.index("Ann")
        assert texts[place + 1] == "Lee"


def test_two_things_never_become_one():
    words, tags = ("Rome", "or", "maybe", "Paris", "won"), [1, 0, 0, 1, 0]
    made = augmented(TokenClassification(), examples_of([words], [tags], ["O", "I-X"]), EVERYTHING, copies=40, seed=0)
    told = {tuple(labels) for labels in made.train.labels}
    assert len(told) > 1 and not any((1, 1) in pairwise(labels) for labels in told)


def test_answers_and_completions_are_not_touched():
    question = examples_of([("where was the old film shot then", "It was shot in Rome.")], [[(15, "Rome")]])
    made = augmented(ExtractiveQa(), question, EVERYTHING, 5, 0).train
    assert len(made) > 1 and {texts[1] for texts in made.texts} == {"It was shot in Rome."}
    pairs = examples_of([("tell me a very long story", "once upon a time there was")], [])
    made = augmented(CausalLm(prompt="prompt"), pairs, EVERYTHING, 5, 0).train
    assert len(made) > 1 and {texts[1] for texts in made.texts} == {"once upon a time there was"}
    with pytest.raises(InputError, match="augment: examples of kind 'causal_lm' can't be altered"):
        augmented(CausalLm(), examples_of([("plain text",)], []), EVERYTHING, 1, 0)
