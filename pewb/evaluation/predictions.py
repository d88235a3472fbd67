"""Predictions: the model's logits for every example of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from pewb.batching import Encoded, batches_by_length, collate
from pewb.evaluation.metrics import classification_metrics, confusion
from pewb.record import Confusion, Metric
from pewb.reporting import Reporter


@dataclass(frozen=True)
class Predictions:
    """What the model says of each example, in the split's order."""

    probabilities: torch.Tensor
    """(examples, classes), float32."""
    labels: list[int]

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
        """Return every metric with its interval."""
        return classification_metrics(self.labels, self.predicted, self.probabilities.shape[1])

    def confusion(self, names: Sequence[str]) -> Confusion:
        """Return the confusion matrix over the classes `names`."""
        return confusion(self.labels, self.predicted, list(names))


@torch.no_grad()
def predict(
    model: Any,
    tokenizer: Any,
    data: Encoded,
    batch_size: int,
    autocast: Callable[[], AbstractContextManager[Any]],
    reporter: Reporter,
    stage: str,
    around_longest: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Predictions:
    """Run `model` in evaluation mode over `data`, the longest batch first, and leave it in the mode it was in.

    Args:
        model: gives logits (batch, classes).
        tokenizer: pads the batches.
        data: the tokenised examples.
        batch_size: examples at once.
        autocast: gives the context in which the model computes (accelerate's `autocast`).
        reporter: told of the progress, as `stage`.
        stage: what this is, for the user.
        around_longest: gives a context for the first batch, which takes the most memory.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    rows: list[torch.Tensor | None] = [None] * len(data)
    done = 0
    for indices in batches_by_length(data.lengths, batch_size):
        inputs, _ = collate(tokenizer, data, indices, device)
        with around_longest() if done == 0 else nullcontext(), autocast():
            logits = model(**inputs).logits
        for index, row in zip(indices, logits.float().softmax(-1).cpu(), strict=True):
            rows[index] = row
        done += len(indices)
        reporter.progress(stage, done, len(data))
    model.train(was_training)
    return Predictions(torch.stack([row for row in rows if row is not None]), data.labels)
