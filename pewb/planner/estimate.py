"""From simulated peaks to an answer: does it fit, with how many examples at once, and how far is it to be trusted."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal

from pydantic import TypeAdapter

from pewb.assets import cache_folder
from pewb.errors import PewbError, RefusedError
from pewb.planner.simulation import EVALUATION_BATCH_SIZE, Phase, Question, Simulation, simulated
from pewb.planner.target import Target
from pewb.record import Parameters

logger = logging.getLogger(__name__)

PLANNER_VERSION = 3
"""Raised when a change alters what is estimated, so that older estimates are not read from the cache."""

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
    parameters: Parameters
    shipped_bytes: int
    """Of the trained weights."""
    step_flops: int
    """Floating-point operations of an optimizer step."""
    step_seconds_at_least: float | None
    """At the device's quoted peak rate, which no training reaches; None: the rate is unknown."""
    precision: str
    fits: Fits | None
    """None: no limit is known."""
    kernels: list[str]
    notices: list[str]
    doubts: list[str]
    """Why the answer is less sure than others."""

    @property
    def confidence(self) -> Literal["high", "low"]:
        """How far the estimate is to be trusted; `doubts` say why not."""
        return "low" if self.doubts else "high"

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as `pewb plan --json` prints it."""
        return {
            "estimate": {
                "train": _phase_json(self.train) | {"micro_batch_size": self.micro_batch_size},
                "evaluation": _phase_json(self.evaluation) | {"batch_size": self.evaluation_batch_size},
            },
            "parameters": self.parameters.model_dump(),
            "shipped_bytes": self.shipped_bytes,
            "step_flops": self.step_flops,
            "step_seconds_at_least": self.step_seconds_at_least,
            "precision": self.precision,
            "fits": self.fits,
            "largest_micro_batch": self.largest_micro_batch,
            "confidence": self.confidence,
            "doubts": self.doubts,
            "attention_kernels": self.kernels,
            "notices": self.notices,
        }


def estimate(question: Question, target: Target) -> Estimate:
    """Simulate `question` on `target`, with as many examples at once as fit unless the recipe says how many.

    What was estimated once is read from the cache, as long as the question, the target and the libraries are the same.

    Raises:
        InputError: the architecture or a setting does not serve.
        RefusedError: the parts of the recipe do not go together.
    """
    place = cache_folder() / "plans" / f"{_identity(question, target)}.json"
    try:
        return _ADAPTER.validate_json(place.read_bytes())
    except (OSError, ValueError):
        pass
    with planning_explained(), simulated(question, target) as simulation:
        found = _estimated(simulation, question, target)
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(_ADAPTER.dump_json(found))
        partial.replace(place)
    except OSError as error:
        logger.warning("the plan is not kept: %s", error)
    return found


@contextmanager
def planning_explained() -> Iterator[None]:
    """Let what can't be simulated be a refusal that says so: some methods ask numbers of tensors that have none.

    Raises:
        RefusedError: the simulation failed.
    """
    try:
        yield
    except PewbError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        logger.debug("the simulation failed", exc_info=True)
        first = (str(error).splitlines() or [""])[0]
        raise RefusedError(
            f"this can't be planned: {type(error).__name__}: {first}; run it as it is, or plan another strategy or backbone"
        ) from error


def _identity(question: Question, target: Target) -> str:
    """Return what tells this estimate from others."""
    versions = {name: version(name) for name in ("pewb", "torch", "transformers", "peft", "bitsandbytes")}
    asked = {
        "config": question.config,
        "family": question.family.__name__,
        "classes": len(question.labels),
        "strategy": question.strategy.model_dump(mode="json"),
        "quantization": question.quantization.model_dump(mode="json"),
        "training": question.training.model_dump(mode="json", exclude={"learning_rate", "epochs", "schedule"}),
    }
    content = json.dumps([PLANNER_VERSION, versions, asked, asdict(target)], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


_ADAPTER = TypeAdapter(Estimate)


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


def _estimated(simulation: Simulation, question: Question, target: Target) -> Estimate:
    training, limit = question.training, target.memory_bytes
    trained: dict[int, tuple[Phase, int]] = {}

    def train(size: int) -> tuple[Phase, int]:
        if size not in trained:
            trained[size] = simulation.train(size)
        return trained[size]

    largest = None
    if limit is not None:
        largest = largest_that(halvings(training.batch_size), lambda size: verdict(train(size)[0], limit) == "yes")
    size = training.micro_batch_size or largest or (1 if limit is not None else training.batch_size)
    phase, flops = train(size)
    evaluated: dict[int, Phase] = {}

    def evaluate(size: int) -> bool:
        evaluated[size] = simulation.evaluate(size)
        return verdict(evaluated[size], limit) in ("yes", None)

    evaluation_size = largest_that(halvings(EVALUATION_BATCH_SIZE), evaluate) or 1
    evaluation = evaluated.get(evaluation_size) or simulation.evaluate(evaluation_size)
    rate = target.flops(simulation.precision)
    return Estimate(
        train=phase,
        evaluation=evaluation,
        evaluation_batch_size=evaluation_size,
        micro_batch_size=size,
        largest_micro_batch=largest,
        parameters=simulation.parameters,
        shipped_bytes=simulation.shipped_bytes,
        step_flops=flops,
        step_seconds_at_least=flops / rate if rate else None,
        precision=simulation.precision,
        fits=_worse(verdict(phase, limit), verdict(evaluation, limit)),
        kernels=simulation.kernels,
        notices=simulation.notices,
        doubts=simulation.doubts,
    )


def halvings(size: int) -> list[int]:
    """Return the sizes that a run comes to when memory runs out again and again, largest first."""
    sizes = [size]
    while sizes[-1] > 1:
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def largest_that(sizes: list[int], fits: Callable[[int], bool]) -> int | None:
    """Return the first of the falling `sizes` that fits, or None; what is larger than one that does not, does not."""
    if fits(sizes[0]):
        return sizes[0]
    low, high = 1, len(sizes)
    while low < high:
        middle = (low + high) // 2
        if fits(sizes[middle]):
            high = middle
        else:
            low = middle + 1
    return sizes[low] if low < len(sizes) else None


def _phase_json(phase: Phase) -> dict[str, Any]:
    peak = phase.peak
    return {
        "peak_allocated_bytes": phase.allocated_bytes,
        "peak_reserved_bytes": phase.reserved_bytes,
        "by_category": dict(peak.by_category),
        "at": f"{peak.operation}, {peak.module}" if peak.module else peak.operation,
    }
