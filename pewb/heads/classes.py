"""One class of several for each text: logits (batch, classes), labels (batch,)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from pewb.batching import Encoded, Inputs
from pewb.evaluation.metrics import classification_metrics, confusion
from pewb.evaluation.tables import Table, class_table
from pewb.heads.head import Head, Reduction
from pewb.heads.texts import tokenised_texts
from pewb.record import Confusion, Metric
from pewb.tasks import Split


class Classes(Head):
    """The cross-entropy of each example's class."""

    def encode(self, tokenizer: Any, split: Split, max_tokens: int, cache: Path | None = None) -> Encoded:
        """Tokenise the texts; an example weighs 1, or what its class does."""
        made = tokenised_texts(tokenizer, split.texts, max_tokens, cache)
        lengths = [len(ids) for ids in made.features["input_ids"]]
        weights = [self.class_weights[label] for label in split.labels] if self.class_weights else [1] * len(split)
        return Encoded(made.features, split.labels, lengths, made.num_cut, weights, split)

    def losses(self, model: Any, inputs: Inputs, labels: torch.Tensor, reduction: Reduction = "sum") -> torch.Tensor:
        """Return the sum over the examples, or each one's loss."""
        logits = self.logits(model, inputs, labels).float()
        weights = torch.tensor(self.class_weights, device=logits.device) if self.class_weights else None
        return functional.cross_entropy(
            logits, labels, weight=weights, reduction=reduction, label_smoothing=self.label_smoothing
        )

    def outputs(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return the classes' probabilities, (batch, classes)."""
        return self.logits(model, inputs, labels).float().softmax(-1)

    def predicted(self, found: Sequence[torch.Tensor], data: Encoded) -> ClassPredictions:
        """Return the most probable class of each example."""
        return ClassPredictions(torch.stack(list(found)), list(data.labels), self.labels)

    def blank_labels(self, num_rows: int, num_tokens: int, device: torch.device) -> torch.Tensor:
        """Return class numbers, (rows,)."""
        return torch.zeros(num_rows, dtype=torch.long, device=device)


@dataclass(frozen=True)
class ClassPredictions:
    """What a model, or a classical predictor, says of each example, in the split's order."""

    probabilities: torch.Tensor
    """(examples, classes), float32."""
    labels: list[int]
    names: Sequence[str]
    """Of the classes."""

    @property
    def predicted(self) -> list[int]:
        """The most probable class of each example."""
        classes: list[int] = self.probabilities.argmax(1).tolist()
        return classes

    @property
    def is_degenerate(self) -> bool:
        """Whether one class was predicted for every example."""
        return len(set(self.predicted)) == 1

    def metrics(self) -> dict[str, Metric]:
        """Return accuracy, F1, Matthews correlation and the area under the ROC curve."""
        return classification_metrics(self.labels, self.predicted, self.probabilities.numpy())

    def confusion(self) -> Confusion:
        """Return the confusion matrix."""
        return confusion(self.labels, self.predicted, list(self.names))

    def warnings(self) -> list[str]:
        """Return a warning if one class was predicted for every example."""
        return [f"predicts one class only ('{self.names[self.predicted[0]]}')"] if self.is_degenerate else []

    def table(self) -> Table:
        """Return each example's label, prediction and probabilities."""
        return class_table(self.names, self.labels, self.predicted, self.probabilities.tolist())
