"""What a run holds at each micro-batch: simulated when it is first asked for, and kept, so that nothing is simulated twice."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from pewb.assets import cache_folder
from pewb.errors import OutOfMemoryError, PewbError, RefusedError
from pewb.planner.deep import DeepSimulation, simulation_of
from pewb.planner.simulation import Phase, Question, Simulation
from pewb.planner.target import Target
from pewb.record import Parameters

logger = logging.getLogger(__name__)

PLANNER_VERSION = 9
"""Raised when a change alters what is simulated, so that what was kept before is not read."""

_NO_MATTER = {
    "learning_rate",
    "epochs",
    "max_steps",
    "schedule",
    "warmup_ratio",
    "length_bucketing",
    "evaluations_per_epoch",
    "patience",
    "micro_batch_size",
}
"""Keys of `training` that change nothing at a given micro-batch."""


@dataclass(frozen=True)
class Facts:
    """What is true of a simulated run at every micro-batch."""

    parameters: Parameters
    shipped_bytes: int
    """Of the trained weights."""
    precision: str
    kernels: tuple[str, ...]
    """The attention kernels that were taken."""
    notices: tuple[str, ...]
    doubts: tuple[str, ...]
    """Why the simulation may be further off than others."""


@dataclass
class _Known:
    """What was simulated so far, by the number of examples at once."""

    facts: Facts | None = None
    trained: dict[int, tuple[Phase, int]] = field(default_factory=dict)
    evaluated: dict[int, Phase] = field(default_factory=dict)
    train_exceeded: dict[int, int] = field(default_factory=dict)
    evaluation_exceeded: dict[int, int] = field(default_factory=dict)
    """Limits beyond which it was broken off."""


_AnySimulation = Simulation | DeepSimulation
_ADAPTER = TypeAdapter(_Known)
_Found = TypeVar("_Found")


class Curve:
    """What one run holds in training and in evaluation, at any number of examples at once."""

    def __init__(self, known: _Known, begin: Callable[[], _AnySimulation]) -> None:
        """Begin with what is known; `begin` starts the simulation, once something else is asked for."""
        self._known = known
        self._begin = begin
        self._simulation: _AnySimulation | None = None

    @property
    def is_longer(self) -> bool:
        """Whether more is known than at first."""
        return self._simulation is not None

    @property
    def facts(self) -> Facts:
        """What is true at every micro-batch, of those that were asked for."""
        if self._known.facts is None or self._simulation:
            self._known.facts = _facts(self._running(), self._known.facts)
        return self._known.facts

    def train(self, micro_batch_size: int, limit_bytes: int | None = None) -> tuple[Phase, int]:
        """Return what training holds with so many examples at once, and the floating-point operations of a whole step.

        Raises:
            InputError: the architecture or a setting does not serve.
            OutOfMemoryError: it holds more than `limit_bytes`; the simulation is broken off there, which saves time.
            RefusedError: the parts of the recipe do not go together, or can't be simulated.
        """
        known = self._known
        return self._found(known.trained, known.train_exceeded, lambda one: one.train, micro_batch_size, limit_bytes)

    def evaluate(self, batch_size: int, limit_bytes: int | None = None) -> Phase:
        """Return what the evaluation of the tuned model holds with so many examples at once.

        Raises:
            InputError: the architecture or a setting does not serve.
            OutOfMemoryError: it holds more than `limit_bytes`; the simulation is broken off there, which saves time.
            RefusedError: the parts of the recipe do not go together, or can't be simulated.
        """
        known = self._known
        return self._found(
            known.evaluated, known.evaluation_exceeded, lambda one: one.evaluate, batch_size, limit_bytes
        )

    def _found(
        self,
        known: dict[int, _Found],
        exceeded: dict[int, int],
        method: Callable[[_AnySimulation], Callable[[int, int | None], _Found]],
        size: int,
        limit_bytes: int | None,
    ) -> _Found:
        if size in known:
            return known[size]
        if limit_bytes is not None and limit_bytes <= exceeded.get(size, -1):
            raise OutOfMemoryError(f"{size} examples at once take more than {limit_bytes} bytes")
        try:
            with _explained():
                known[size] = method(self._running())(size, limit_bytes)
        except OutOfMemoryError:
            if limit_bytes is not None:
                exceeded[size] = limit_bytes
            raise
        return known[size]

    def _running(self) -> _AnySimulation:
        if self._simulation is None:
            with _explained():
                self._simulation = self._begin()
        return self._simulation

    def kept(self) -> _Known:
        """Return everything that is known."""
        return replace(self._known, facts=self.facts)


@contextmanager
def curve_of(question: Question, target: Target) -> Iterator[Curve]:
    """Give the curve of `question` on devices like `target`, whatever their memory.

    It is kept in the cache, for as long as the question, the kind of device and the libraries are the same.
    """
    place = cache_folder() / "plans" / f"{_identity(question, target)}.json"
    try:
        known = _ADAPTER.validate_json(place.read_bytes())
    except (OSError, ValueError):
        known = _Known()
    curve = Curve(known, lambda: simulation_of(question, target))
    yield curve
    if curve.is_longer:
        _keep(curve.kept(), place)


def _keep(known: _Known, place: Path) -> None:
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(_ADAPTER.dump_json(known))
        partial.replace(place)
    except OSError as error:
        logger.warning("the plan is not kept: %s", error)


def _facts(simulation: _AnySimulation, before: Facts | None) -> Facts:
    """Return the facts of a simulation and of those before it: which kernels are taken may depend on the micro-batch."""

    def joined(now: list[str], then: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*then, *now]))

    return Facts(
        simulation.parameters,
        simulation.shipped_bytes,
        simulation.precision,
        kernels=tuple(sorted({*simulation.kernels, *(before.kernels if before else ())})),
        notices=joined(simulation.notices, before.notices if before else ()),
        doubts=joined(simulation.doubts, before.doubts if before else ()),
    )


def _identity(question: Question, target: Target) -> str:
    """Return what tells this curve from others."""
    versions = {name: version(name) for name in ("pewb", "torch", "transformers", "peft", "bitsandbytes")}
    asked = {
        "config": question.config,
        "form": question.task.form,
        "classes": len(question.labels),
        "strategy": [question.strategy.model_dump(mode="json"), _source(type(question.strategy))],
        "quantization": question.quantization.model_dump(mode="json"),
        "training": question.training.model_dump(mode="json", exclude=_NO_MATTER),
    }
    if question.targets is not None:
        asked["targets"] = question.targets
    device = [target.kind, target.has_bf16, target.capability]
    content = json.dumps([PLANNER_VERSION, versions, asked, device], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _source(kind: type) -> str:
    """Return what a strategy that is not pewb's own does, which its version may not tell."""
    if kind.__module__.startswith("pewb."):
        return ""
    try:
        return Path(inspect.getfile(kind)).read_text(encoding="utf-8")
    except (OSError, TypeError):
        return repr(kind)


@contextmanager
def _explained() -> Iterator[None]:
    """Let what can't be simulated be a refusal that says so.

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
