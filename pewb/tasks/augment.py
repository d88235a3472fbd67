"""Augmentation: altered copies of training examples, whose labels stay true."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pewb.tasks.examples import Examples, Split

if TYPE_CHECKING:
    from pewb.tasks.family import TaskFamily

_KEPT = re.compile(
    r"(?i)\b(not|no|nor|never|none|nobody|nothing|neither|nowhere|without|hardly|barely|scarcely|cannot)\b|n['’]t\b|\d"
)
"""Words on which a label hangs whatever the task: negations (of Kiritchenko and Mohammad 2016, what is one word) and numbers."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Alteration:
    """How the words of a text are altered (Wei and Zou 2019, without the synonyms; Belinkov and Bisk 2018 for the noise).

    Each is a probability for each word; negations and numbers are left as they are.
    """

    word_dropout: float = 0.0
    """The word is left out."""
    swap: float = 0.0
    """It changes places with the next."""
    noise: float = 0.0
    """Two neighbouring letters of it change places, or one is doubled, left out or another."""


Altered = list[tuple[int, str]]
"""For each word of the altered text, its place in the text that was altered, and itself."""


def alter(
    words: Sequence[str],
    alteration: Alteration,
    generator: random.Random,
    may_touch: Callable[[int], bool] = lambda place: True,
) -> Altered:
    """Return altered `words`; those for whose place `may_touch` is false are left as they are, where they are.

    A text of which nothing would be left is returned as it was.
    """
    touched = [may_touch(place) and not _KEPT.search(word) for place, word in enumerate(words)]
    left = [
        (place, word)
        for place, word in enumerate(words)
        if not (touched[place] and generator.random() < alteration.word_dropout)
    ]
    if not left:
        return list(enumerate(words))
    place = 0
    while place + 1 < len(left):
        both = touched[left[place][0]] and touched[left[place + 1][0]]
        if both and generator.random() < alteration.swap:
            left[place], left[place + 1] = left[place + 1], left[place]
            place += 1
        place += 1
    return [
        (origin, _noisy(word, generator) if touched[origin] and generator.random() < alteration.noise else word)
        for origin, word in left
    ]


def _noisy(word: str, generator: random.Random) -> str:
    if len(word) < 2:
        return word
    place = generator.randrange(len(word) - 1)
    first, second = word[place], word[place + 1]
    changed = generator.choice((second + first, first + first + second, first, generator.choice(_LETTERS) + second))
    return word[:place] + changed + word[place + 2 :]


def altered_text(text: str, alteration: Alteration, generator: random.Random) -> str:
    """Return an altered text; what stands between its words, such as the ends of lines, stays."""
    begin, *rest = re.split(r"(\S+)", text)
    words, between = rest[::2], rest[1::2]
    made = alter(words, alteration, generator)
    kept = sorted(place for place, _ in made)
    parts = (word + between[place] for (_, word), place in zip(made, kept, strict=True))
    return begin + "".join(parts)


def augmented(task: TaskFamily, examples: Examples, alteration: Alteration, copies: int, seed: int) -> Examples:
    """Return the examples with, after those of training, `copies` altered copies of each of them, drawn from `seed`.

    A copy that is no different from what is there already is left out.
    """
    generator = random.Random(seed)
    train = examples.train
    texts, labels = list(train.texts), list(train.labels)
    seen = set(texts)
    for _ in range(copies):
        for number, one in enumerate(train.texts):
            label = train.labels[number] if train.labels else None
            made, told = task.altered(one, label, examples.labels, alteration, generator)
            if made in seen:
                continue
            seen.add(made)
            texts.append(made)
            if train.labels:
                labels.append(told)
    return replace(examples, train=Split(texts, labels))
