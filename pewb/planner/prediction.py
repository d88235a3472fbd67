"""What a run is predicted to hold, told before it starts and kept in its record beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

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


def predict_memory(question: Question, target: Target, longest: int, num_tested: int) -> Prediction:
    """Simulate a run whose longest example has `longest` tokens, and which is tested on `num_tested` examples at once."""
    training = question.training.model_copy(update={"max_tokens": longest})
    size = training.asked_micro_batch_size
    with curve_of(replace(question, training=training), target) as curve:
        train, _ = curve.train(size)
        evaluation = curve.evaluate(num_tested)
    warning = None
    if verdict(train, target.memory_bytes) == "no":
        warning = (
            f"the plan says that {size} examples at once do not fit: {format_bytes(train.needed_bytes)} are needed, there"
            f" are {format_bytes(target.memory_bytes)}; they are halved until they do"
        )
    return Prediction(Memory(train=_peak(train, target), evaluation=_peak(evaluation, target)), warning)


def _peak(phase: Phase, target: Target) -> Peak:
    """Return what the run's own measurement is to find: on a GPU with cuBLAS's workspaces."""
    besides = target.workspace_bytes
    reserved = phase.reserved_bytes
    return Peak(
        peak_allocated_bytes=phase.allocated_bytes + besides,
        peak_reserved_bytes=None if reserved is None else reserved + besides,
    )
