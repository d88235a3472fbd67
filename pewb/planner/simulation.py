"""A training step and an evaluation batch on virtual tensors: the run's own assembly and step, and what they hold."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import clear_frames
from typing import Any

import torch
from torch import nn

from pewb import assembly
from pewb.anatomy import Anatomy
from pewb.device import Computing, computing_on
from pewb.heads import head_of
from pewb.measurement.memory import tensors_of
from pewb.measurement.parameters import count_parameters
from pewb.planner.allocator import BLOCK, peak_reserved
from pewb.planner.ledger import Ledger
from pewb.planner.stand_ins import VirtualAccelerator, VirtualBatches, WatchedOptimizer
from pewb.planner.target import Target
from pewb.planner.trace import Change, Moment, peak_of, repeated
from pewb.planner.virtual_device import META, VirtualDevice
from pewb.prediction import EVALUATION_BATCH_SIZE
from pewb.quantization import store_virtually
from pewb.recipe import Quantization, Training
from pewb.record import Parameters
from pewb.strategies import Strategy
from pewb.tasks import TaskFamily
from pewb.training.optimizers import make_optimizer
from pewb.training.step import Stepper

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
    task: TaskFamily
    labels: Sequence[str]
    strategy: Strategy
    quantization: Quantization
    training: Training
    targets: tuple[int, ...] | None = None
    """Target tokens of each example of a batch, where labels are tokens; None: as many as there may be."""


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


class Simulation:
    """An assembled virtual run; ask it for any micro-batch."""

    def __init__(self, question: Question, target: Target) -> None:
        """Assemble the virtual run of `question` on `target`.

        Raises:
            InputError: the architecture or a setting does not serve.
            RefusedError: the strategy does not fit the architecture, or what else of the recipe.
        """
        self._question, self._target = question, target
        self._device = VirtualDevice(target.kind, target.capability)
        self._granule = BLOCK if target.kind == "cuda" else 1
        self._ledger = Ledger([], self._granule, self._device.numbers, self._device.on_host)
        self._untrained: list[str] = []
        self._names: dict[nn.Module, tuple[str, int | None]] = {}
        computing = computing_on(META, question.training.precision, target.has_bf16, target.kind)
        with self._running():
            assembled = self._assembled(computing)
        self.precision = computing.precision
        self.notices = assembled.notices
        self.parameters: Parameters = count_parameters(assembled.model, assembled.anatomy)
        self.shipped_bytes: int = sum(one.nbytes for one in assembled.model.parameters() if one.requires_grad)

    def _assembled(self, computing: Computing) -> assembly.Assembly:
        question, training, ledger = self._question, self._question.training, self._ledger
        assembled = assembly.load(
            question.backbone,
            question.config,
            question.labels,
            question.strategy,
            question.quantization,
            training,
            computing,
            seed=0,
            task=question.task,
        )
        with self._device.numbers.recorded():
            dtype = computing.compute_type if computing.autocast != "no" else None
            assembly.insert(assembled, training.gradient_checkpointing, 0, lambda: self._device.autocast(dtype))
        model = assembled.model
        store_virtually(model)
        optimizer = WatchedOptimizer(make_optimizer(model, training, self._target.kind), ledger)
        self._head = head_of(question.task, question.labels, training)
        self._prefix = assembled.prefix if training.keeps_prefix else None
        self._batches = VirtualBatches(model.config, self._head, training.max_tokens, question.targets)
        self._stepper = Stepper(
            model,
            question.strategy,
            self._batches,
            self._head,
            optimizer,
            VirtualAccelerator(self._device, computing, ledger),
            training,
            training.asked_micro_batch_size,
        )
        question.strategy.begin_training(model, _NUM_STEPS)
        self._names = _names_of(model, assembled.anatomy)
        for tensor in tensors_of(model):
            ledger.belongs(tensor, "weights")
        for module, (_, layer) in self._names.items():
            for tensor in tensors_of(module) if layer is not None else ():
                ledger.belongs(tensor, "weights", layer)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda one: ledger.belongs(one.grad, "gradients"))
        return assembled

    @property
    def doubts(self) -> list[str]:
        """Return why the simulation may be further off than others."""
        doubts = []
        if self._question.quantization.kind == "int8":
            doubts.append("int8: columns with outliers, which are multiplied apart in 16 bits, are not simulated")
        if self.precision.startswith("bf16") and not self._target.has_bf16:
            doubts.append(f"{self.precision}: the device does not compute in bf16; other kernels may be taken")
        if self._question.training.packing:
            doubts.append("packing: planned as if each example had a row of its own")
        if self._question.training.compile:
            doubts.append("compile: the layers are planned as they are, not compiled")
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
        trace, flops = self.trace_of_training(micro_batch_size, limit_bytes)
        return phase_of(trace, self._target), flops

    def evaluate(self, batch_size: int = EVALUATION_BATCH_SIZE, limit_bytes: int | None = None) -> Phase:
        """Return what the evaluation of a tuned model holds, its longest batch.

        Raises:
            OutOfMemoryError: the live tensors take more than `limit_bytes`.
        """
        return phase_of(self.trace_of_evaluation(batch_size, limit_bytes), self._target)

    def trace_of_training(self, micro_batch_size: int, limit_bytes: int | None = None) -> tuple[list[Change], int]:
        """Return the changes of two steps, and the floating-point operations of one.

        Raises:
            OutOfMemoryError: the live tensors take more than `limit_bytes`.
        """
        batch_size = self._question.training.batch_size
        shown = min(batch_size, micro_batch_size * _MICRO_BATCHES)
        stepper, ledger = self._stepper, self._ledger
        with self._running(limit_bytes), self._without_prefix():
            stepper.micro_batch_size = micro_batch_size
            stepper.model.train()
            ledger.end_part()
            ledger.flops = 0
            stepper.step(range(shown))
            ledger.end_part()
            flops = ledger.flops * batch_size // shown
            self._untrained = [
                name for name, one in stepper.model.named_parameters() if one.requires_grad and one.grad is None
            ]
            return self._with_second_step(shown), flops

    def _with_second_step(self, num_examples: int) -> list[Change]:
        """Take a second step, which finds the optimizer's state; return the trace of both.

        Its gradients are computed by the operations of the first step, beside that state, so that part is not simulated
        again, unless the first step left something behind that the second would find.
        """
        stepper, ledger = self._stepper, self._ledger
        live = ledger.live()
        is_alone = not live["activations"] and not live["temporaries"]
        if not is_alone:
            stepper.step(range(num_examples))
        else:
            stepper.optimizer.step()
        ledger.end_part()
        stepper.optimizer.zero_grad()
        if not is_alone:
            return ledger.trace
        trace = ledger.trace
        start, computed, updated, *_, again = ledger.parts
        anew = repeated(trace[start:computed], trace[:start], trace)
        return [*trace[:updated], *trace[again:], *anew, *trace[updated:again]]

    def trace_of_evaluation(self, batch_size: int, limit_bytes: int | None = None) -> list[Change]:
        """Return the changes of an evaluation's longest batch.

        Raises:
            OutOfMemoryError: the live tensors take more than `limit_bytes`.
        """
        with self._running(limit_bytes):
            self._stepper.model.eval()
            with torch.no_grad():
                inputs, labels = self._batches(range(batch_size))
                with self._stepper.accelerator.autocast():
                    self._head.outputs(self._stepper.model, inputs, labels)
        return self._ledger.trace

    @contextmanager
    def _without_prefix(self) -> Iterator[None]:
        """Train what is above the frozen prefix, whose states are given; the evaluation, which computes them, is of the whole."""
        if self._prefix is None:
            yield
            return
        self._prefix.cut()
        self._batches.prefix = self._prefix
        try:
            yield
        finally:
            self._batches.prefix = None
            self._prefix.restore()

    @contextmanager
    def _running(self, limit_bytes: int | None = None) -> Iterator[None]:
        """Be on the virtual device, and follow what is done there; what a broken-off step leaves is let go of."""
        ledger = self._ledger
        device, followed = self._device.active(), _modules_followed(self._names, ledger)
        with torch.random.fork_rng(devices=[]), own_garbage(), device, ledger, followed:
            ledger.limit_bytes = None
            ledger.category = "activations" if self._names else "weights"
            if self._names:
                self._stepper.optimizer.forget()
                ledger.restart()
            ledger.limit_bytes = limit_bytes
            try:
                yield
            except BaseException as error:
                clear_frames(error.__traceback__)
                raise
            finally:
                ledger.limit_bytes = None


def phase_of(trace: Sequence[Change], target: Target) -> Phase:
    """Return what a device like `target` holds over `trace`."""
    if target.kind != "cuda":
        peak = peak_of(trace, 1)
        return Phase(peak.total, None, peak)
    peak = peak_of(trace, BLOCK)
    return Phase(peak.total, peak_reserved(trace), peak)


@contextmanager
def own_garbage() -> Iterator[None]:
    """Collect at the end what was left inside, and nothing older: the libraries' own objects are many."""
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _names_of(model: nn.Module, anatomy: Anatomy) -> dict[nn.Module, tuple[str, int | None]]:
    """Return the name of each module, and the layer that it is in if the model has one stack of them."""
    stack = re.escape(anatomy.top_stack.path)
    in_layer = re.compile(rf"(?:^|\.){stack}\.(\d+)(?:\.|$)")
    found = {}
    for name, module in model.named_modules():
        match = in_layer.search(name) if len(anatomy.stacks) == 1 else None
        found[module] = name, int(match[1]) if match else None
    return found


@contextmanager
def _modules_followed(names: Mapping[nn.Module, tuple[str, int | None]], ledger: Ledger) -> Iterator[None]:
    """Tell the ledger in which module an operation is."""

    def enter(module: nn.Module, _inputs: Any) -> None:
        ledger.enter(*names.get(module, ("", None)))

    def leave(_module: nn.Module, _inputs: Any, _outputs: Any) -> None:
        ledger.leave()

    handles: list[Callable[[], None]] = [
        torch.nn.modules.module.register_module_forward_pre_hook(enter).remove,
        torch.nn.modules.module.register_module_forward_hook(leave, always_call=True).remove,
    ]
    try:
        yield
    finally:
        for remove in handles:
            remove()
