"""Predictions: the model's logits for every example of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from pewb.batching import Encoded, collate
from pewb.errors import OutOfMemoryError, TrainingError
from pewb.evaluation.metrics import classification_metrics, confusion
from pewb.measurement.memory import is_out_of_memory
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

    Where memory runs out, batches are halved from there on.

    Args:
        model: gives logits (batch, classes).
        tokenizer: pads the batches.
        data: the tokenised examples.
        batch_size: examples at once, if they fit.
        autocast: gives the context in which the model computes (accelerate's `autocast`).
        reporter: told of the progress, as `stage`.
        stage: what this is, for the user.
        around_longest: gives a context for the first batch, which takes the most memory.

    Raises:
        OutOfMemoryError: one example at a time does not fit.
        TrainingError: the model's logits are not numbers.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(data)), key=lambda index: -data.lengths[index])
    done: list[torch.Tensor] = []
    num_done = 0
    while num_done < len(order):
        indices = order[num_done : num_done + batch_size]
        try:
            inputs, _ = collate(tokenizer, data, indices, device)
            with around_longest() if num_done == 0 else nullcontext(), autocast():
                logits = model(**inputs).logits
            done.append(logits.float().softmax(-1).cpu())
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(indices) == 1:
                raise OutOfMemoryError(f"{stage}: one example at a time does not fit: {_first_line(error)}") from None
            batch_size = (len(indices) + 1) // 2
            continue
        num_done += len(indices)
        reporter.progress(stage, num_done, len(data))
    model.train(was_training)
    probabilities = torch.empty_like(torch.cat(done))
    probabilities[order] = torch.cat(done)
    if not probabilities.isfinite().all():
        raise TrainingError(
            f"{stage}: the model's outputs are not numbers; try a lower training.learning_rate or"
            ' training.precision = "fp32"'
        )
    return Predictions(probabilities, data.labels)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
