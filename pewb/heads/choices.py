"""Which of several continuations a language model finds the likeliest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pewb.batching import Encoded
from pewb.evaluation.intervals import proportion
from pewb.evaluation.tables import Table, choices_table
from pewb.heads.causal_lm import NextTokens
from pewb.record import Confusion, Metric
from pewb.tasks import Split

_BETWEEN = " "
"""Stands between prompt and choice."""


class LikeliestChoice(NextTokens):
    """The loss of the right choice's tokens; an evaluation computes that of every choice, each a row."""

    def encode(self, tokenizer: Any, split: Split, max_tokens: int, cache: Path | None = None) -> Encoded:
        """Tokenise each choice of each example as a continuation of its prompt."""
        rows: list[tuple[str, ...]] = [(texts[0], _BETWEEN + choice) for texts in split.texts for choice in texts[1:]]
        return replace(super().encode(tokenizer, Split(rows), max_tokens, cache), split=split)

    def encode_training(self, tokenizer: Any, split: Split, max_tokens: int, cache: Path | None = None) -> Encoded:
        """Tokenise the right choice of each example as a continuation of its prompt."""
        rows: list[tuple[str, ...]] = [
            (texts[0], _BETWEEN + texts[1 + label]) for texts, label in zip(split.texts, split.labels, strict=True)
        ]
        return super().encode(tokenizer, Split(rows), max_tokens, cache)

    def predicted(self, found: Sequence[torch.Tensor], data: Encoded) -> ChoicePredictions:  # type: ignore[override]
        """Return the choices of each example by their likelihood."""
        sizes = [len(texts) - 1 for texts in data.split.texts]
        losses = torch.stack(list(found)).split(sizes)
        per_byte = [
            one / torch.tensor([max(1, len(choice.encode())) for choice in texts[1:]])
            for one, texts in zip(losses, data.split.texts, strict=True)
        ]
        return ChoicePredictions(list(losses), per_byte, list(data.split.labels))


@dataclass(frozen=True)
class ChoicePredictions:
    """How unlikely each choice of each example is, in the split's order."""

    losses: list[torch.Tensor]
    """For each example (choices,), nats."""
    losses_per_byte: list[torch.Tensor]
    labels: list[int]

    @property
    def predicted(self) -> list[int]:
        """The likeliest choice per byte."""
        return [int(one.argmin()) for one in self.losses_per_byte]

    @property
    def likeliest(self) -> list[int]:
        """The likeliest choice as a whole."""
        return [int(one.argmin()) for one in self.losses]

    def metrics(self) -> dict[str, Metric]:
        """Return how many of the likeliest choices per byte are right, and of the likeliest as a whole."""

        def share(predicted: list[int]) -> Metric:
            return proportion(
                sum(one == other for one, other in zip(predicted, self.labels, strict=True)), len(predicted)
            )

        return {"accuracy_normalised": share(self.predicted), "accuracy": share(self.likeliest)}

    def confusion(self) -> Confusion | None:
        """Return none: the choices of one example are not those of another."""
        return None

    def warnings(self) -> list[str]:
        """Return a warning if the choice in one place was taken every time."""
        places = set(self.predicted)
        return [f"takes choice {places.pop()} every time"] if len(places) == 1 and len(set(self.labels)) > 1 else []

    def table(self) -> Table:
        """Return each example's right choice, and those that were taken."""
        return choices_table(self.labels, self.likeliest, self.predicted)
