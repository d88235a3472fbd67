"""Prediction: a model is run over every example of a split, as many at once as fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from pewb.batching import Collated, Inputs, by_length
from pewb.errors import OutOfMemoryError, TrainingError
from pewb.heads import Head, Predicted, head_of
from pewb.measurement.memory import is_out_of_memory
from pewb.reporting import Reporter
from pewb.tasks import TextClassification

EVALUATION_BATCH_SIZE = 64
"""Examples at once, if they fit."""


@torch.no_grad()
def predict(
    model: Any,
    batches: Collated,
    batch_size: int,
    autocast: Callable[[], AbstractContextManager[Any]],
    reporter: Reporter,
    stage: str,
    around_longest: Callable[[], AbstractContextManager[Any]] = nullcontext,
    head: Head | None = None,
) -> Predicted:
    """Run `model` in evaluation mode over `data`, the longest batch first, and leave it in the mode it was in.

    Where memory runs out, batches are halved from there on.

    Args:
        model: what the head reads from.
        batches: of the examples.
        batch_size: examples at once, if they fit.
        autocast: gives the context in which the model computes (accelerate's `autocast`).
        reporter: told of the progress, as `stage`.
        stage: what this is, for the user.
        around_longest: gives a context for the first batch, which takes the most memory.
        head: of the task; it says what is taken from the model's outputs. Left out: that of a classification.

    Raises:
        OutOfMemoryError: one example at a time does not fit.
        TrainingError: the model's logits are not numbers.
    """
    was_training = model.training
    model.eval()
    data = batches.data
    head = head or head_of(TextClassification())

    def compute(inputs: Inputs, labels: torch.Tensor) -> list[torch.Tensor]:
        with autocast():
            return list(head.outputs(model, inputs, labels).cpu())

    found: list[torch.Tensor] = [torch.empty(0)] * len(data)
    for indices, taken in computed(batches, batch_size, compute, reporter, stage, around_longest):
        for index, one in zip(indices, taken, strict=True):
            found[index] = one
    model.train(was_training)
    if not all(bool(one.isfinite().all()) for one in found):
        raise TrainingError(
            f"{stage}: the model's outputs are not numbers; try a lower training.learning_rate or"
            ' training.precision = "fp32"'
        )
    return head.predicted(found, data)


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
    return in_fitting_batches(
        batches.data.lengths, batch_size, lambda indices: compute(*batches(indices)), reporter, stage, around_longest
    )


def in_fitting_batches(
    lengths: Sequence[int],
    batch_size: int,
    compute: Callable[[list[int]], Any],
    reporter: Reporter,
    stage: str,
    around_longest: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[tuple[list[int], Any]]:
    """Yield numbers of rows with these `lengths`, the longest first, and what `compute` makes of them, as many as fit.

    Raises:
        OutOfMemoryError: one row at a time does not fit.
    """
    order = by_length(lengths)
    num_done = 0
    while num_done < len(order):
        indices = order[num_done : num_done + batch_size]
        try:
            with around_longest() if num_done == 0 else nullcontext():
                taken = compute(indices)
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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
