"""A number for each text: logits (batch, 1), labels (batch,)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pewb.batching import Encoded, Inputs
from pewb.evaluation.metrics import regression_metrics
from pewb.evaluation.tables import Table, number_table
from pewb.heads.head import Head, Reduction
from pewb.heads.texts import tokenised_texts
from pewb.record import Confusion, Metric
from pewb.tasks import Split


@dataclass(frozen=True)
class Number(Head):
    """The squared error of each example's number, on the scale on which training's have mean 0 and deviation 1."""

    scale: tuple[float, float] = (0.0, 1.0)
    """Mean and deviation of the training numbers: what the model gives, times the deviation, plus the mean, is the answer."""

    def encode(self, tokenizer: Any, split: Split, max_tokens: int, cache: Path | None = None) -> Encoded:
        """Tokenise the texts, and scale the numbers."""
        made = tokenised_texts(tokenizer, split.texts, max_tokens, cache)
        lengths = [len(ids) for ids in made.features["input_ids"]]
        mean, deviation = self.scale
        labels = [(label - mean) / deviation for label in split.labels]
        return Encoded(made.features, labels, lengths, made.num_cut, [1] * len(split), split)

    @property
    def constants(self) -> dict[str, float]:
        """The scale."""
        return dict(zip(("mean", "deviation"), self.scale, strict=True))

    def losses(self, model: Any, inputs: Inputs, labels: torch.Tensor, reduction: Reduction = "sum") -> torch.Tensor:
        """Return the sum over the examples, or each one's loss."""
        losses = (self.logits(model, inputs, labels).float().squeeze(1) - labels.float()).square()
        return losses.sum() if reduction == "sum" else losses

    def outputs(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return each example's number, (batch,), as the model gives it."""
        return self.logits(model, inputs, labels).float().squeeze(1)

    def predicted(self, found: Sequence[torch.Tensor], data: Encoded) -> NumberPredictions:
        """Return the numbers on the files' own scale."""
        mean, deviation = self.scale
        numbers = torch.stack(list(found)).double() * deviation + mean
        return NumberPredictions(numbers.tolist(), list(data.split.labels))

    def blank_labels(self, num_rows: int, num_tokens: int, device: torch.device) -> torch.Tensor:
        """Return numbers, (rows,)."""
        return torch.zeros(num_rows, device=device)


@dataclass(frozen=True)
class NumberPredictions:
    """What a model, or a classical predictor, says of each example, in the split's order."""

    predicted: list[float]
    labels: list[float]

    def metrics(self) -> dict[str, Metric]:
        """Return Pearson's and Spearman's correlation, and the mean squared error."""
        return regression_metrics(self.labels, self.predicted)

    def confusion(self) -> Confusion | None:
        """Return none: there are no classes."""
        return None

    def warnings(self) -> list[str]:
        """Return a warning if one number was predicted for every example."""
        return (
            [f"predicts one number only ({self.predicted[0]:g})"] if max(self.predicted) == min(self.predicted) else []
        )

    def table(self) -> Table:
        """Return each example's number, and the one predicted."""
        return number_table(self.labels, self.predicted)
