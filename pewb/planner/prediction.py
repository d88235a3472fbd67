"""What a run is predicted to hold, told before it starts and kept in its record beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pewb.batching import Encoded
from pewb.planner.curve import curve_of
from pewb.planner.estimate import verdict
from pewb.planner.simulation import Phase, Question
from pewb.planner.target import Target
from pewb.record import Memory, Peak
from pewb.units import format_bytes


@dataclass(frozen=True)
class Prediction:
    """The memory of a run's longest batches."""

    memory: Memory
    warning: str | None
    """That it will not fit as it is asked for; None: it may."""


@dataclass(frozen=True)
class LargestBatch:
    """One of the batches of a phase that hold the most padded tokens."""

    num_examples: int
    num_tokens: int
    """Of its longest example."""
    targets: tuple[int, ...] | None
    """Target tokens of each example, where labels are tokens."""


def largest_batch(data: Encoded, batch: Sequence[int]) -> LargestBatch:
    """Return what decides how much memory a batch takes, of the examples' numbers."""
    ids = data.features.select(batch)["input_ids"]
    targets = None if len(data.labels) else tuple(round(data.weights[index]) for index in batch)
    return LargestBatch(len(batch), max(map(len, ids)), targets)


def predict_memory(
    question: Question, target: Target, trained: Sequence[LargestBatch], tested: LargestBatch
) -> Prediction:
    """Simulate a run whose largest batches are these.

    The batch with the most tokens need not be the one that takes the most memory: a CPU's attention is another kernel for long texts.
    """
    phases = []
    size = question.training.asked_micro_batch_size
    for batch in trained:
        at_once = min(size, batch.num_examples)
        with curve_of(_asked(question, _hardest_first(batch, at_once)), target) as curve:
            phases.append(curve.train(at_once)[0])
    train = max(phases, key=lambda phase: phase.needed_bytes)
    with curve_of(_asked(question, tested), target) as curve:
        evaluation = curve.evaluate(tested.num_examples)
    warning = None
    if verdict(train, target.memory_bytes) == "no":
        warning = (
            f"the plan says that {size} examples at once do not fit: {format_bytes(train.needed_bytes)} are needed, there"
            f" are {format_bytes(target.memory_bytes)}; they are halved until they do"
        )
    return Prediction(Memory(train=_peak(train, target), evaluation=_peak(evaluation, target)), warning)


def _hardest_first(batch: LargestBatch, size: int) -> LargestBatch:
    """Return the batch with its micro-batches of `size` in another order: a simulated step takes the first two alone."""
    targets = batch.targets
    if targets is None:
        return batch
    parts = [targets[start : start + size] for start in range(0, len(targets), size)]
    parts.sort(key=lambda part: (-len(part), -sum(part)))
    return replace(batch, targets=tuple(count for part in parts for count in part))


def _asked(question: Question, batch: LargestBatch) -> Question:
    training = question.training.model_copy(update={"max_tokens": batch.num_tokens, "batch_size": batch.num_examples})
    return replace(question, training=training, targets=batch.targets)


def _peak(phase: Phase, target: Target) -> Peak:
    """Return what the run's own measurement is to find: on a GPU with cuBLAS's workspaces."""
    besides = target.workspace_bytes
    reserved = phase.reserved_bytes
    return Peak(
        peak_allocated_bytes=phase.allocated_bytes + besides,
        peak_reserved_bytes=None if reserved is None else reserved + besides,
    )
