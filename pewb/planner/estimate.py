"""From simulated peaks to an answer: does it fit, with how many examples at once, and how far is it to be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pewb.errors import OutOfMemoryError
from pewb.planner.curve import Facts, curve_of
from pewb.planner.simulation import Phase, Question
from pewb.planner.target import Target
from pewb.prediction import EVALUATION_BATCH_SIZE

Fits = Literal["yes", "borderline", "no"]

MARGIN = 0.048
"""How far a prediction may be off; what lies within it of the limit is called borderline.

Not derived but chosen, and with a view on the published runs of `benchmarks/planner_accuracy.md`, of which the one furthest
above its plan is 4.5 % above it.
"""


@dataclass(frozen=True)
class Estimate:
    """What one row needs on a target, at one micro-batch."""

    train: Phase
    evaluation: Phase
    evaluation_batch_size: int
    """Examples at once in the evaluation, which halves its batch until it fits."""
    micro_batch_size: int
    largest_micro_batch: int | None
    """Of the halvings of the batch, the largest that fits; None: not even one example does, or no limit is known."""
    step_flops: int
    """Floating-point operations of an optimizer step."""
    step_seconds_at_least: float | None
    """At the device's quoted peak rate, which no training reaches; None: the rate is unknown."""
    fits: Fits | None
    """None: no limit is known."""
    facts: Facts
    """What is true at every micro-batch."""

    @property
    def confidence(self) -> Literal["high", "low"]:
        """How far the estimate is to be trusted; the facts' doubts say why not."""
        return "low" if self.facts.doubts else "high"

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as `pewb plan --json` prints it."""
        return {
            "estimate": {
                "train": _phase_json(self.train) | {"micro_batch_size": self.micro_batch_size},
                "evaluation": _phase_json(self.evaluation) | {"batch_size": self.evaluation_batch_size},
            },
            "parameters": self.facts.parameters.model_dump(),
            "shipped_bytes": self.facts.shipped_bytes,
            "step_flops": self.step_flops,
            "step_seconds_at_least": self.step_seconds_at_least,
            "precision": self.facts.precision,
            "fits": self.fits,
            "largest_micro_batch": self.largest_micro_batch,
            "confidence": self.confidence,
            "doubts": self.facts.doubts,
            "attention_kernels": self.facts.kernels,
            "notices": self.facts.notices,
        }


def estimate(question: Question, target: Target) -> Estimate:
    """Return what `question` needs on `target`, with as many examples at once as fit unless the recipe says how many.

    Raises:
        InputError: the architecture or a setting does not serve.
        RefusedError: the parts of the recipe do not go together, or can't be simulated.
    """
    training, limit = question.training, target.memory_bytes
    with curve_of(question, target) as curve:
        largest = largest_within(limit, halvings(training.batch_size), lambda *size: curve.train(*size)[0])
        size = training.micro_batch_size or largest or (1 if limit is not None else training.batch_size)
        phase, flops = curve.train(size)
        at_once = largest_within(limit, halvings(EVALUATION_BATCH_SIZE), curve.evaluate)
        evaluation_size = at_once or (1 if limit is not None else EVALUATION_BATCH_SIZE)
        evaluation = curve.evaluate(evaluation_size)
        facts = curve.facts
    rate = target.flops(facts.precision)
    return Estimate(
        train=phase,
        evaluation=evaluation,
        evaluation_batch_size=evaluation_size,
        micro_batch_size=size,
        largest_micro_batch=largest,
        step_flops=flops,
        step_seconds_at_least=flops / rate if rate else None,
        fits=_worse(verdict(phase, limit), verdict(evaluation, limit)),
        facts=facts,
    )


def bounds(phase: Phase) -> tuple[int, int]:
    """Return the least and the most memory with which a phase may turn out to run.

    Less than the live tensors can't do. On a GPU the allocator holds more, as long as there is more, and gives back what
    it can before it fails.
    """
    return int(phase.allocated_bytes * (1 - MARGIN)), int(
        (phase.reserved_bytes or phase.allocated_bytes) * (1 + MARGIN)
    )


def verdict(phase: Phase, limit: int | None) -> Fits | None:
    """Return whether a phase fits within `limit` bytes."""
    if limit is None:
        return None
    least, most = bounds(phase)
    return "yes" if most <= limit else "no" if least > limit else "borderline"


def _worse(one: Fits | None, other: Fits | None) -> Fits | None:
    order: list[Fits | None] = [None, "yes", "borderline", "no"]
    return max(one, other, key=order.index)


def halvings(size: int) -> list[int]:
    """Return the sizes that a run comes to when memory runs out again and again, largest first."""
    sizes = [size]
    while sizes[-1] > 1:
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def largest_within(limit: int | None, sizes: Sequence[int], simulate: Callable[[int, int], Phase]) -> int | None:
    """Return the first of the falling `sizes` that surely fits, or None; that needs no simulation of the smaller ones.

    `simulate` takes a size and a limit of the live bytes, beyond which it may raise `OutOfMemoryError` at once.
    """
    for size in sizes if limit is not None else ():
        try:
            phase = simulate(size, int((limit or 0) / (1 + MARGIN)))
        except OutOfMemoryError:
            continue
        if verdict(phase, limit) == "yes":
            return size
    return None


def _phase_json(phase: Phase) -> dict[str, Any]:
    peak = phase.peak
    return {
        "peak_allocated_bytes": phase.allocated_bytes,
        "peak_reserved_bytes": phase.reserved_bytes,
        "by_category": dict(peak.by_category),
        "at": f"{peak.operation}, {peak.module}" if peak.module else peak.operation,
    }
