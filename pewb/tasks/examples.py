"""Examples: what the files of a task hold once they are read, divided and checked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from pewb.tasks.splits import text_key


@dataclass(frozen=True)
class Split:
    """The examples of one split, in the order of the file."""

    texts: list[tuple[str, ...]] = field(default_factory=list)
    """One or two texts for each example."""
    labels: list[int] = field(default_factory=list)
    """The class of each example; empty in a family without classes."""

    def __len__(self) -> int:
        return len(self.texts)

    def limited(self, count: int | None) -> Split:
        """Return at most `count` examples, chosen by a hash of their text."""
        if count is None or count >= len(self):
            return self
        chosen = sorted(sorted(range(len(self)), key=lambda index: text_key(self.texts[index]))[:count])
        labels = [self.labels[index] for index in chosen] if self.labels else []
        return Split([self.texts[index] for index in chosen], labels)


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
