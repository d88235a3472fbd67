"""Examples: what the files of a task hold once they are read, divided and checked."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pewb.tasks.splits import text_key


@dataclass(frozen=True)
class Split:
    """The examples of one split, in the order of the file."""

    texts: list[tuple[str, ...]] = field(default_factory=list)
    """What is read of each example: one or two texts, or its words."""
    labels: list[Any] = field(default_factory=list)
    """What is to be predicted of each example, as its family has it (a class's number, …); empty where that is in the texts."""

    def __len__(self) -> int:
        return len(self.texts)

    def limited(self, count: int | None, stratum: Callable[[Any], Hashable] = lambda label: None) -> Split:
        """Return at most `count` examples, of each stratum of labels the same share; which ones a hash of their text says.

        The choice for a smaller `count` is a part of that for a larger one.
        """
        if count is None or count >= len(self):
            return self
        keys = [text_key(texts) for texts in self.texts]
        strata: dict[Hashable, list[int]] = defaultdict(list)
        for index in sorted(range(len(self)), key=lambda index: keys[index]):
            strata[stratum(self.labels[index]) if self.labels else None].append(index)
        place = {index: (rank + 0.5) / len(one) for one in strata.values() for rank, index in enumerate(one)}
        chosen = sorted(sorted(place, key=lambda index: (place[index], keys[index]))[:count])
        return self.part(chosen)

    def part(self, indices: Sequence[int]) -> Split:
        """Return the examples with these numbers."""
        labels = [self.labels[index] for index in indices] if self.labels else []
        return Split([self.texts[index] for index in indices], labels)


@dataclass(frozen=True)
class Examples:
    """Everything that a run reads."""

    labels: list[str]
    """Names of the classes; empty in a family without classes."""
    train: Split
    validation: Split
    test: Split
    warnings: list[str]

    def facts(self) -> dict[str, Any]:
        """Return what a record keeps of the data."""
        return {
            "train_examples": len(self.train),
            "validation_examples": len(self.validation),
            "test_examples": len(self.test),
            "test_digest": self._digest([self.test.texts]),
        }

    @staticmethod
    def _digest(content: list[Any]) -> str:
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


def shared_texts(train: Split, test: Split) -> list[str]:
    """Return a warning if test examples have the same text as a training example."""
    trained = {text_key(texts) for texts in train.texts}
    shared = sum(text_key(texts) in trained for texts in test.texts)
    return [f"{shared} of {len(test)} test examples have the same text as a training example"] if shared else []
