"""Any number of classes for each text: logits (batch, classes), labels (batch, classes) of 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from pewb.batching import Encoded, Inputs
from pewb.evaluation.metrics import multi_label_metrics
from pewb.evaluation.tables import Table, sets_table
from pewb.heads.head import Head, Reduction
from pewb.heads.texts import tokenised_texts
from pewb.record import Confusion, Metric
from pewb.tasks import Split

_THRESHOLD = 0.5
"""A class with a greater probability is predicted."""


class MultiLabel(Head):
    """The binary cross-entropy of each class, averaged over the classes; an example weighs 1.

    A class's weight is that of its positive examples.
    """

    def encode(self, tokenizer: Any, split: Split, max_tokens: int, cache: Path | None = None) -> Encoded:
        """Tokenise the texts."""
        made = tokenised_texts(tokenizer, split.texts, max_tokens, cache)
        lengths = [len(ids) for ids in made.features["input_ids"]]
        return Encoded(made.features, split.labels, lengths, made.num_cut, [1] * len(split), split)

    def losses(self, model: Any, inputs: Inputs, labels: torch.Tensor, reduction: Reduction = "sum") -> torch.Tensor:
        """Return the sum over the examples, or each one's loss."""
        logits = self.logits(model, inputs, labels).float()
        weights = torch.tensor(self.class_weights, device=logits.device) if self.class_weights else None
        each = functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none", pos_weight=weights)
        losses = each.mean(1)
        return losses.sum() if reduction == "sum" else losses

    def outputs(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return each class's probability, (batch, classes)."""
        return self.logits(model, inputs, labels).float().sigmoid()

    def predicted(self, found: Sequence[torch.Tensor], data: Encoded) -> SetPredictions:
        """Return the classes of each example that are more probable than not."""
        return SetPredictions(torch.stack(list(found)), torch.tensor(data.labels), self.labels)

    def blank_labels(self, num_rows: int, num_tokens: int, device: torch.device) -> torch.Tensor:
        """Return a 0 for each class, (rows, classes)."""
        return torch.zeros(num_rows, len(self.labels), dtype=torch.long, device=device)


@dataclass(frozen=True)
class SetPredictions:
    """What a model, or a classical predictor, says of each example, in the split's order."""

    probabilities: torch.Tensor
    """(examples, classes), float32."""
    labels: torch.Tensor
    """(examples, classes), 0 and 1."""
    names: Sequence[str]
    """Of the classes."""

    @property
    def predicted(self) -> torch.Tensor:
        """(examples, classes), 0 and 1."""
        return (self.probabilities > _THRESHOLD).long()

    def metrics(self) -> dict[str, Metric]:
        """Return F1 over all decisions (micro) and over the classes (macro), exact matches, and the area under the ROC curve."""
        return multi_label_metrics(self.labels.numpy(), self.predicted.numpy(), self.probabilities.numpy())

    def confusion(self) -> Confusion | None:
        """Return none: an example has no one class."""
        return None

    def warnings(self) -> list[str]:
        """Return a warning if every example was given the same classes."""
        first = self.predicted[0]
        if not bool((self.predicted == first).all()):
            return []
        chosen = [name for name, one in zip(self.names, first.tolist(), strict=True) if one]
        return [f"predicts the same for every example ({', '.join(chosen) or 'no class'})"]

    def table(self) -> Table:
        """Return each example's classes, those predicted, and the probabilities."""
        return sets_table(self.names, self.labels.tolist(), self.predicted.tolist(), self.probabilities.tolist())
