"""Predictions: what the model says of every example of a split, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from pewb.batching import Collated
from pewb.errors import OutOfMemoryError, TrainingError
from pewb.evaluation.metrics import classification_metrics, confusion, language_metrics
from pewb.evaluation.tables import Table, class_table, loss_table
from pewb.measurement.memory import is_out_of_memory
from pewb.objective import Classes, Inputs, Objective, objective_of
from pewb.record import Confusion, Metric
from pewb.reporting import Reporter
from pewb.tasks import TaskFamily, TextClassification


class Predicted(Protocol):
    """What a model says of the examples of one split; `names` are those of the classes, if there are any."""

    def metrics(self) -> dict[str, Metric]:
        """Return every metric with its interval."""
        ...

    def confusion(self, names: Sequence[str]) -> Confusion | None:
        """Return the confusion matrix, where there are classes."""
        ...

    def warnings(self, names: Sequence[str]) -> list[str]:
        """Return what must be known before the metrics are believed."""
        ...

    def table(self, names: Sequence[str]) -> Table:
        """Return what is kept of each example."""
        ...


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

    def warnings(self, names: Sequence[str]) -> list[str]:
        """Return a warning if one class was predicted for every example."""
        return [f"predicts one class only ('{names[self.predicted[0]]}')"] if self.is_degenerate else []

    def table(self, names: Sequence[str]) -> Table:
        """Return each example's label, prediction and probabilities."""
        return class_table(names, self.labels, self.predicted, self.probabilities.tolist())


@dataclass(frozen=True)
class TokenLosses:
    """What each example of a language model's split cost, in the split's order."""

    losses: torch.Tensor
    """(examples,), the sum over the example's target tokens, in nats, float32."""
    num_tokens: list[int]
    """The target tokens of each example."""

    def metrics(self) -> dict[str, Metric]:
        """Return the loss per token and the perplexity, with their intervals."""
        return language_metrics(self.losses.tolist(), self.num_tokens)

    def confusion(self, names: Sequence[str]) -> Confusion | None:
        """Return none: there are no classes."""
        return None

    def warnings(self, names: Sequence[str]) -> list[str]:
        """Return a warning if examples have no target token, and so count for nothing."""
        without = self.num_tokens.count(0)
        return (
            [f"{without} of {len(self.num_tokens)} test examples have no target within max_tokens"] if without else []
        )

    def table(self, names: Sequence[str]) -> Table:
        """Return each example's loss and number of target tokens."""
        return loss_table(self.losses.tolist(), self.num_tokens)


@torch.no_grad()
def predict(
    model: Any,
    batches: Collated,
    batch_size: int,
    autocast: Callable[[], AbstractContextManager[Any]],
    reporter: Reporter,
    stage: str,
    around_longest: Callable[[], AbstractContextManager[Any]] = nullcontext,
    family: type[TaskFamily] = TextClassification,
) -> Predicted:
    """Run `model` in evaluation mode over `data`, the longest batch first, and leave it in the mode it was in.

    Where memory runs out, batches are halved from there on.

    Args:
        model: gives logits, (batch, classes) or (batch, tokens, vocabulary).
        batches: of the examples.
        batch_size: examples at once, if they fit.
        autocast: gives the context in which the model computes (accelerate's `autocast`).
        reporter: told of the progress, as `stage`.
        stage: what this is, for the user.
        around_longest: gives a context for the first batch, which takes the most memory.
        family: of the task; it says what is taken from the logits.

    Raises:
        OutOfMemoryError: one example at a time does not fit.
        TrainingError: the model's logits are not numbers.
    """
    was_training = model.training
    model.eval()
    data = batches.data
    objective = objective_of(family)
    has_classes = family.model_head == "sequence_classification"

    def compute(inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        return outputs_of(model, objective, inputs, labels, autocast).cpu()

    done = list(computed(batches, batch_size, compute, reporter, stage, around_longest))
    model.train(was_training)
    order = [index for indices, _ in done for index in indices]
    found = torch.cat([taken for _, taken in done])
    found[order] = found.clone()
    if not found.isfinite().all():
        raise TrainingError(
            f"{stage}: the model's outputs are not numbers; try a lower training.learning_rate or"
            ' training.precision = "fp32"'
        )
    return Predictions(found, data.labels) if has_classes else TokenLosses(found, data.weights)


def computed(
    batches: Collated,
    batch_size: int,
    compute: Callable[[Inputs, torch.Tensor], Any],
    reporter: Reporter,
    stage: str,
    around_longest: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[tuple[list[int], Any]]:
    """Yield examples' numbers and what `compute` makes of them, the longest first (`predict` says what the arguments are).

    Raises:
        OutOfMemoryError: one example at a time does not fit.
    """
    lengths = batches.data.lengths
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    num_done = 0
    while num_done < len(order):
        indices = order[num_done : num_done + batch_size]
        try:
            with around_longest() if num_done == 0 else nullcontext():
                taken = compute(*batches(indices))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(indices) == 1:
                raise OutOfMemoryError(f"{stage}: one example at a time does not fit: {_first_line(error)}") from None
            batch_size = (len(indices) + 1) // 2
            continue
        num_done += len(indices)
        reporter.progress(stage, num_done, len(order))
        yield indices, taken


def outputs_of(
    model: Any,
    objective: Objective,
    inputs: Inputs,
    labels: torch.Tensor,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> torch.Tensor:
    """Return what is kept of a batch: the classes' probabilities, (batch, classes), or each example's loss, (batch,)."""
    with autocast():
        if isinstance(objective, Classes):
            return objective.logits(model, inputs, labels).float().softmax(-1)
        return objective.losses(model, inputs, labels, "none")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
