"""The simulation of a deep model by two shallow ones, where its layers are alike."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import nn

from pewb.backbone import build_virtual, read_blueprint
from pewb.planner.layers import SHALLOW, extended
from pewb.planner.simulation import Phase, Question, Simulation, own_garbage, phase_of
from pewb.planner.target import Target
from pewb.planner.trace import Change
from pewb.prediction import EVALUATION_BATCH_SIZE
from pewb.record import Parameters
from pewb.strategies import Strategy

logger = logging.getLogger(__name__)

_Told = TypeVar("_Told")

_LEAST_LAYERS = 12
"""With fewer, two shallow simulations take as long as the whole one."""

_DEPTH_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""How a `config.json` calls the number of layers."""


def simulation_of(question: Question, target: Target) -> Simulation | DeepSimulation:
    """Return the simulation of `question` on `target`, by shallow models where that gives the same.

    Raises:
        InputError: the architecture or a setting does not serve.
        RefusedError: the strategy does not fit the architecture, or what else of the recipe.
    """
    shallow = _shallow(question)
    if shallow is not None:
        try:
            return DeepSimulation(question, target, shallow)
        except Exception as error:  # the whole model can do what is asked, or says what is wrong
            logger.debug("no shallow models can stand for this one: %s", error)
    return Simulation(question, target)


@dataclass(frozen=True)
class _Shallow:
    """How a model with fewer layers is asked for."""

    num_layers: int
    stack: str
    questions: tuple[Question, ...]
    """One for each of the shallow depths."""


class DeepSimulation:
    """What `Simulation` says of a deep model, from two shallow ones: to the byte, or by the whole model after all."""

    def __init__(self, question: Question, target: Target, shallow: _Shallow) -> None:
        """Assemble the two shallow models.

        Raises:
            InputError: the architecture or a setting does not serve.
            RefusedError: the strategy does not fit the shallow models, or what else of the recipe.
        """
        self._question, self._target, self._shallow = question, target, shallow
        self._pair = [Simulation(one, target) for one in shallow.questions]
        self._whole: Simulation | None = None
        self.precision, self.notices = self._pair[0].precision, self._pair[0].notices

    @property
    def is_extended(self) -> bool:
        """Whether the shallow models stand for the whole one, as far as is known."""
        return self._whole is None

    @property
    def _speaker(self) -> Simulation:
        return self._whole or self._pair[-1]

    @property
    def parameters(self) -> Parameters:
        """The numbers of parameters."""
        if self._whole:
            return self._whole.parameters
        fewer, more = (one.parameters.model_dump() for one in self._pair)
        return Parameters(**{name: self._in_proportion(count, more[name]) for name, count in fewer.items()})

    @property
    def shipped_bytes(self) -> int:
        """Bytes of the trained weights."""
        if self._whole:
            return self._whole.shipped_bytes
        fewer, more = (one.shipped_bytes for one in self._pair)
        return self._in_proportion(fewer, more)

    @property
    def doubts(self) -> list[str]:
        """Return why the simulation may be further off than others."""
        return self._speaker.doubts

    @property
    def kernels(self) -> list[str]:
        """The attention kernels that were taken."""
        return self._speaker.kernels

    def train(self, micro_batch_size: int, limit_bytes: int | None = None) -> tuple[Phase, int]:
        """Return what training holds with so many examples at once, and the floating-point operations of a whole step.

        Raises:
            OutOfMemoryError: the whole model had to be simulated, and takes more than `limit_bytes`.
        """
        told = self._of_both(lambda one: one.trace_of_training(micro_batch_size))
        if told:
            (fewer, less_flops), (more, flops) = told
            phase = self._phase([fewer, more])
            if phase is not None:
                return phase, self._in_proportion(less_flops, flops)
        return self._by_the_whole().train(micro_batch_size, limit_bytes)

    def evaluate(self, batch_size: int = EVALUATION_BATCH_SIZE, limit_bytes: int | None = None) -> Phase:
        """Return what the evaluation of a tuned model holds, its longest batch.

        Raises:
            OutOfMemoryError: the whole model had to be simulated, and takes more than `limit_bytes`.
        """
        traces = self._of_both(lambda one: one.trace_of_evaluation(batch_size))
        phase = self._phase(traces) if traces else None
        if phase is not None:
            return phase
        return self._by_the_whole().evaluate(batch_size, limit_bytes)

    def _of_both(self, asked: Callable[[Simulation], _Told]) -> list[_Told] | None:
        """Return what the shallow models answer; None: they do not stand for the whole one, or one of them can't."""
        if self._whole:
            return None
        try:
            return [asked(one) for one in self._pair]
        except Exception as error:  # such as where every layer of the fewer happens to be dropped
            logger.debug("a shallow model can't do what is asked: %s", error)
            return None

    def _phase(self, traces: Sequence[Sequence[Change]]) -> Phase | None:
        """Return what the whole model holds, if the `traces` of the shallow ones tell."""
        if self._pair[0].doubts != self._pair[1].doubts:
            return None
        with own_garbage():  # so many changes would make Python look for garbage again and again
            trace = extended(traces, self._shallow.num_layers, self._shallow.stack)
            return None if trace is None else phase_of(trace, self._target)

    def _by_the_whole(self) -> Simulation:
        if self._whole is None:
            logger.debug("the layers do not do alike; the whole model is simulated")
            self._whole = Simulation(self._question, self._target)
            self._pair = []
        return self._whole

    def _in_proportion(self, fewer: int, more: int) -> int:
        return more + (self._shallow.num_layers - SHALLOW[1]) * (more - fewer)


def _shallow(question: Question) -> _Shallow | None:
    """Return how to ask for shallow models that can stand for `question`'s; None: it is none, or its layers differ."""
    if _may_name_layers(question.strategy):
        return None
    blueprint = read_blueprint(question.config, question.labels, question.training.dropout, question.task)
    stack = blueprint.anatomy.top_stack
    depth = stack.num_layers
    keys = [key for key in _DEPTH_KEYS if question.config.get(key) == depth]
    if len(blueprint.anatomy.stacks) > 1 or depth < _LEAST_LAYERS or len(keys) != 1:
        return None
    model = build_virtual(blueprint.model_class, blueprint.config)
    layers: Any = model.get_submodule(stack.path)
    told = list(map(_signature, layers))
    by_layer = [one for one in vars(blueprint.config).values() if isinstance(one, list | tuple) and len(one) == depth]
    if any(one != told[0] for one in told) or any(one != list_[0] for list_ in by_layer for one in list_):
        return None

    def shallower(count: int) -> Question:
        cut = {
            name: value[:count] if isinstance(value, list) and len(value) == depth else value
            for name, value in question.config.items()
        }
        return replace(question, config=cut | {keys[0]: count})

    return _Shallow(depth, stack.path, tuple(map(shallower, SHALLOW)))


_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
"""A module's name, or the end of one, that has no number in it."""
_WORD = re.compile(r"[A-Za-z_-]*")


def _may_name_layers(strategy: Strategy) -> bool:
    """Return whether a strategy's settings may single out layers that the shallow models do not have.

    By a key that is of layers, or by a name with a number or a pattern, both in PEFT's configurations above all.
    """
    settings = strategy.model_dump(exclude={"kind"})
    settings |= settings.pop("config", {})
    settings.pop("peft_type", None)
    return any(
        ("layer" in key and value not in (None, [], "")) or not _is_of_every_layer(value, _WORD)
        for key, value in settings.items()
    )


def _is_of_every_layer(value: Any, allowed: re.Pattern[str]) -> bool:
    """Return whether the texts in `value` are all such as `allowed`; in a list they may be modules' names."""
    if isinstance(value, Mapping):
        return all(_is_of_every_layer(one, _WORD) for pair in value.items() for one in pair)
    if isinstance(value, list | tuple | set):
        return all(_is_of_every_layer(one, _NAME) for one in value)
    return not isinstance(value, str) or allowed.fullmatch(value) is not None


def _signature(layer: nn.Module) -> Any:
    """Return everything that makes a layer what it is, but for its number."""
    return [
        (
            name,
            type(module),
            [(key, one.shape, one.dtype) for key, one in module.named_parameters(recurse=False)],
            [(key, one.shape, one.dtype) for key, one in module.named_buffers(recurse=False)],
            {
                key: value
                for key, value in vars(module).items()
                if key != "layer_idx" and isinstance(value, bool | int | float | str | tuple | None)
            },
        )
        for name, module in layer.named_modules()
    ]
