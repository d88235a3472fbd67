"""A training step and an evaluation batch on virtual tensors: the run's own assembly and step, and what they hold."""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pewb import assembly
from pewb.device import Computing, computing_on
from pewb.evaluation.predictions import outputs_of
from pewb.measurement.memory import tensors_of
from pewb.measurement.parameters import count_parameters
from pewb.objective import Inputs, Objective, objective_of
from pewb.planner.allocator import BLOCK, peak_reserved
from pewb.planner.ledger import Ledger, Moment
from pewb.planner.target import Target
from pewb.planner.virtual_device import META, VirtualDevice
from pewb.quantization import store_virtually
from pewb.recipe import Quantization, Training
from pewb.record import Parameters
from pewb.strategies import Strategy
from pewb.tasks import TaskFamily
from pewb.training.optimizers import make_optimizer
from pewb.training.step import Stepper

EVALUATION_BATCH_SIZE = 64
_NUM_STEPS = 2
"""The first step has no optimizer state yet, the second has."""
_MICRO_BATCHES = 2
"""Of an accumulated step: from the second on, gradients are there while the next micro-batch is computed."""


@dataclass(frozen=True)
class Question:
    """What is to be simulated: a row of a recipe, and the architecture."""

    backbone: str
    config: dict[str, Any]
    """The content of the backbone's `config.json`."""
    family: type[TaskFamily]
    labels: Sequence[str]
    strategy: Strategy
    quantization: Quantization
    training: Training


@dataclass(frozen=True)
class Phase:
    """What a phase holds at its peak."""

    allocated_bytes: int
    reserved_bytes: int | None
    """By the allocator of a GPU; None on a device that has none."""
    peak: Moment

    @property
    def needed_bytes(self) -> int:
        """What a device would show as used: reserved where there is an allocator, else the live tensors."""
        return self.reserved_bytes or self.allocated_bytes


@dataclass
class Simulation:
    """An assembled virtual run; ask it for any micro-batch."""

    parameters: Parameters
    shipped_bytes: int
    precision: str
    notices: list[str]
    _question: Question
    _target: Target
    _ledger: Ledger
    _device: VirtualDevice
    _stepper: Stepper
    _objective: Objective
    _batches: VirtualBatches
    _entered: list[tuple[int, str]] = field(default_factory=list)
    _untrained: list[str] = field(default_factory=list)

    @property
    def doubts(self) -> list[str]:
        """Return why the simulation may be further off than others."""
        doubts = []
        if self._question.quantization.kind == "int8":
            doubts.append("int8: columns with outliers, which are multiplied apart in 16 bits, are not simulated")
        if self.precision.startswith("bf16") and not self._target.has_bf16:
            doubts.append(f"{self.precision}: the device does not compute in bf16; other kernels may be taken")
        if self._device.numbers.is_drawn:
            doubts.append("the initialisation asks for the weights' numbers; the simulation gave it drawn ones")
        if self._untrained:
            doubts.append(
                f"{len(self._untrained)} trained parameters have no gradient in the simulation, such as {self._untrained[0]}"
            )
        return doubts

    @property
    def kernels(self) -> list[str]:
        """The attention kernels that were taken."""
        return sorted(self._device.kernels)

    def train(self, micro_batch_size: int, limit_bytes: int | None = None) -> tuple[Phase, int]:
        """Return what training holds with so many examples at once, and the floating-point operations of a whole step.

        Raises:
            OutOfMemoryError: the live tensors take more than `limit_bytes`, which was seen before all was simulated.
        """
        batch_size = self._question.training.batch_size
        shown = min(batch_size, micro_batch_size * _MICRO_BATCHES)
        stepper, ledger = self._stepper, self._ledger
        stepper.micro_batch_size = micro_batch_size
        stepper.model.train()
        self._begin(limit_bytes)
        ledger.end_part()
        ledger.flops = 0
        stepper.step(range(shown))
        ledger.end_part()
        flops = ledger.flops * batch_size // shown
        self._untrained = [
            name for name, one in stepper.model.named_parameters() if one.requires_grad and one.grad is None
        ]
        peaks, trace = self._second_step(shown)
        return self._phase(max(peaks, key=lambda peak: peak.total), trace), flops

    def _second_step(self, num_examples: int) -> tuple[list[Moment], list[tuple[int, int]]]:
        """Take a second step, which finds the optimizer's state; return the peaks of the parts of both, and their trace.

        Its gradients are computed by the operations of the first step, beside that state, so that part is not simulated
        again, unless the first step left something behind that the second would find.
        """
        stepper, ledger = self._stepper, self._ledger
        start, computing, update = ledger.parts
        is_alone = not update.live["activations"] and not update.live["temporaries"]
        if not is_alone:
            stepper.step(range(num_examples))
        else:
            stepper.optimizer.step()
        ledger.end_part()
        again = ledger.parts[-1]
        stepper.optimizer.zero_grad()
        peaks, trace = [part.peak for part in ledger.parts], ledger.trace
        if not is_alone:
            return peaks, trace
        freed = trace[again.end :]
        repeated = _on_new_storages(trace[start.end : computing.end], trace[: start.end], trace)
        peaks.append(computing.peak.after(start.live, update.live))
        return peaks, [*trace[: update.end], *freed, *repeated, *trace[update.end : again.end]]

    def evaluate(self, batch_size: int = EVALUATION_BATCH_SIZE, limit_bytes: int | None = None) -> Phase:
        """Return what the evaluation of a tuned model holds, its longest batch.

        Raises:
            OutOfMemoryError: the live tensors take more than `limit_bytes`.
        """
        self._stepper.model.eval()
        self._begin(limit_bytes)
        with torch.no_grad():
            inputs, labels = self._batches(range(batch_size))
            outputs_of(self._stepper.model, self._objective, inputs, labels, self._stepper.accelerator.autocast)
        return self._phase(self._ledger.peak, self._ledger.trace)

    def _begin(self, limit_bytes: int | None) -> None:
        """Let go of what earlier steps left, also of one that was broken off, and begin to follow anew."""
        self._ledger.limit_bytes = None
        self._ledger.category = "activations"
        self._stepper.optimizer.forget()
        gc.collect()
        self._ledger.restart()
        self._ledger.limit_bytes = limit_bytes

    def _phase(self, peak: Moment, trace: list[tuple[int, int]]) -> Phase:
        reserved = peak_reserved(trace) if self._device.kind == "cuda" else None
        return Phase(peak.total, reserved, self._named(peak))

    def _named(self, peak: Moment) -> Moment:
        """Return `peak` with the module in whose backward it is: nodes are numbered in the order of the forward."""
        if peak.sequence is None or not self._entered:
            return peak
        place = bisect_right(self._entered, (peak.sequence, chr(0x10FFFF))) - 1
        name = self._entered[max(place, 0)][1]
        return Moment(peak.total, peak.by_category, peak.operation, f"backward of {name or 'the loss'}")


def _on_new_storages(
    part: list[tuple[int, int]], before: list[tuple[int, int]], trace: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield `part` of a trace as it goes when it is done again: what it makes is other than what it made at first."""
    kept = {name for name, _ in before}
    beyond = max((name for name, _ in trace), default=0)
    for name, size in part:
        yield name if name in kept else name + beyond, size


@contextmanager
def simulated(question: Question, target: Target) -> Iterator[Simulation]:
    """Give a virtual run of `question` on `target`; everything virtual ends with the context.

    Raises:
        InputError: the architecture or a setting does not serve.
        RefusedError: the strategy does not fit the architecture, or what else of the recipe.
    """
    device = VirtualDevice(target.kind, target.capability)
    computing = computing_on(META, question.training.precision, target.has_bf16, target.kind)
    ledger = Ledger([], BLOCK if target.kind == "cuda" else 1, device.numbers, device.on_host)
    training = question.training
    with torch.random.fork_rng(devices=[]), _own_garbage(), device.active(), ledger:
        assembled = assembly.load(
            question.backbone,
            question.config,
            question.labels,
            question.strategy,
            question.quantization,
            training,
            computing,
            seed=0,
            family=question.family,
        )
        with device.numbers.recorded():
            assembly.insert(assembled, training.gradient_checkpointing, seed=0)
        model = assembled.model
        store_virtually(model)
        optimizer = _WatchedOptimizer(make_optimizer(model, training, target.kind), ledger)
        objective = objective_of(question.family, training.label_smoothing)
        batches = VirtualBatches(model.config, question.family, training.max_tokens)
        stepper = Stepper(
            model,
            question.strategy,
            batches,
            objective,
            optimizer,
            _VirtualAccelerator(device, computing, ledger),
            training,
            training.asked_micro_batch_size,
        )
        question.strategy.begin_training(model, _NUM_STEPS)
        for tensor in tensors_of(model):
            ledger.belongs(tensor, "weights")
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda one: ledger.belongs(one.grad, "gradients"))
        parameters = count_parameters(model, assembled.anatomy)
        simulation = Simulation(
            parameters=parameters,
            shipped_bytes=sum(one.nbytes for one in model.parameters() if one.requires_grad),
            precision=computing.precision,
            notices=assembled.notices,
            _question=question,
            _target=target,
            _ledger=ledger,
            _device=device,
            _stepper=stepper,
            _objective=objective,
            _batches=batches,
        )
        with _modules_followed(model, ledger, simulation._entered):
            yield simulation


@dataclass(frozen=True)
class VirtualBatches:
    """Batches of the longest examples there may be, as shapes; each is padded, for a mask of ones would be dropped."""

    config: Any
    family: type[TaskFamily]
    num_tokens: int

    def weight(self, indices: Sequence[int]) -> int:
        """Return the number of losses; on virtual numbers any will do."""
        return len(indices)

    def __call__(self, indices: Sequence[int]) -> tuple[Inputs, torch.Tensor]:
        """Return inputs (batch, tokens), and labels: (batch,) for classes, (batch, tokens) for tokens."""
        shape = (len(indices), self.num_tokens)

        def made(*size: int) -> torch.Tensor:
            return torch.zeros(size, dtype=torch.long, device=META)

        inputs = {"input_ids": made(*shape), "attention_mask": made(*shape)}
        text_config = self.config.get_text_config()
        if getattr(text_config, "type_vocab_size", 0) > 1 or "deberta" in text_config.model_type:
            inputs["token_type_ids"] = made(*shape)
        is_classifier = self.family.model_head == "sequence_classification"
        return inputs, made(len(indices)) if is_classifier else made(*shape)


@contextmanager
def _own_garbage() -> Iterator[None]:
    """Collect what the simulation leaves, when it is asked for, and nothing older: the libraries' own objects are many."""
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


class _WatchedOptimizer:
    """An optimizer whose state is told to a ledger, with what a step needs of accelerate's."""

    def __init__(self, optimizer: torch.optim.Optimizer, ledger: Ledger) -> None:
        self._optimizer = optimizer
        self._ledger = ledger

    def step(self) -> None:
        self._ledger.end_part()
        self._ledger.category = "temporaries"
        self._optimizer.step()
        for state in self._optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    self._ledger.belongs(value, "optimizer")
        self._ledger.category = "activations"

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._optimizer.zero_grad(set_to_none=set_to_none)

    def forget(self) -> None:
        """Be as before the first step."""
        self.zero_grad()
        self._optimizer.state.clear()


class _VirtualAccelerator:
    """What a step needs of accelerate's `Accelerator`, on a virtual device."""

    device = META

    def __init__(self, device: VirtualDevice, computing: Computing, ledger: Ledger) -> None:
        self._device = device
        self._type = computing.compute_type if computing.autocast != "no" else None
        self._ledger = ledger

    def autocast(self) -> AbstractContextManager[None]:
        self._ledger.category = "activations"
        return self._device.autocast(self._type)

    def backward(self, loss: torch.Tensor) -> None:
        self._ledger.category = "temporaries"
        torch.autograd.backward(loss)  # Tensor.backward would leave the virtual device
        self._ledger.category = "activations"

    def clip_grad_norm_(self, parameters: list[nn.Parameter], max_norm: float) -> None:
        self._ledger.category = "temporaries"
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)


@contextmanager
def _modules_followed(model: nn.Module, ledger: Ledger, entered: list[tuple[int, str]]) -> Iterator[None]:
    """Tell the ledger in which module an operation is, and `entered` from which autograd node on."""
    names = {module: name for name, module in model.named_modules()}
    open_modules: list[str] = []

    def enter(module: nn.Module, _inputs: Any) -> None:
        open_modules.append(names.get(module, ""))
        note()

    def leave(_module: nn.Module, _inputs: Any, _outputs: Any) -> None:
        open_modules.pop()
        note()

    def note() -> None:
        ledger.module = open_modules[-1] if open_modules else ""
        entered.append((torch._C._autograd._get_sequence_nr(), ledger.module))

    handles: list[Callable[[], None]] = [
        torch.nn.modules.module.register_module_forward_pre_hook(enter).remove,
        torch.nn.modules.module.register_module_forward_hook(leave, always_call=True).remove,
    ]
    try:
        yield
    finally:
        for remove in handles:
            remove()
