"""Which of several continuations a language model finds the likeliest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from pewb.batching import Encoded, Tokenised
from pewb.errors import InputError
from pewb.evaluation.intervals import proportion
from pewb.evaluation.tables import Table, choices_table
from pewb.heads.causal_lm import NextTokens, leading_tokens, plain_tokens, rows_of
from pewb.record import Confusion, Metric
from pewb.tasks import Split

_BETWEEN = " "
"""Stands between prompt and choice."""


class LikeliestChoice(NextTokens):
    """The loss of the right choice's tokens; an evaluation computes that of every choice, each a row.

    No end token follows a choice: what is compared are the likelihoods of its bytes.
    """

    def encode_training(self, tokenizer: Any, split: Split, max_tokens: int, cache: Path | None = None) -> Encoded:
        """Tokenise the right choice of each example as a continuation of its prompt."""
        rows: list[tuple[str, ...]] = [
            (texts[0], texts[1 + label]) for texts, label in zip(split.texts, split.labels, strict=True)
        ]
        return self.encode(tokenizer, Split(rows), max_tokens, cache)

    def _tokenised(self, tokenizer: Any, split: Split, max_tokens: int) -> Tokenised:
        """Return a row for each choice; all choices of an example go on from the same end of its prompt, and none is cut.

        Raises:
            InputError: a choice leaves no room for its prompt.
        """
        start = leading_tokens(tokenizer)
        prompts = plain_tokens(tokenizer, [texts[0] for texts in split.texts])
        choices = iter(plain_tokens(tokenizer, [_BETWEEN + one for texts in split.texts for one in texts[1:]]))
        rows, num_cut = [], 0
        for prompt, texts in zip(prompts, split.texts, strict=True):
            told = list(islice(choices, len(texts) - 1))
            longest = max(map(len, told))
            left = max_tokens - len(start) - longest
            if left < 1:
                raise InputError(
                    f"training.max_tokens: a choice of {longest} tokens leaves no room for its prompt within {max_tokens};"
                    f" allowed: from {longest + len(start) + 1} on"
                )
            num_cut += left < len(prompt)
            rows += [[(prompt[max(0, len(prompt) - left) :], False), (one, True)] for one in told]
        return replace(rows_of(rows, max_tokens, start), num_cut=num_cut)

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
