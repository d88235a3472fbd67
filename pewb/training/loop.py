"""The training loop: epochs of batches, evaluation on validation, early stopping, measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from pewb.batching import FOLLOWED_STEPS, Collated, first_epoch, shuffled_batches
from pewb.errors import OutOfMemoryError
from pewb.heads import Head, head_of
from pewb.measurement.flops import FlopCounting, StepFlops
from pewb.measurement.memory import PhaseMemory, is_out_of_memory, tensors_of
from pewb.recipe import Training
from pewb.record import Curves
from pewb.reporting import Reporter
from pewb.strategies import Strategy
from pewb.tasks import TextClassification
from pewb.training.best import BestState
from pewb.training.optimizers import make_optimizer, make_schedule
from pewb.training.step import Stepper
from pewb.units import format_bytes

_READ_EVERY_SECONDS = 0.2
"""Losses are read, and progress is told, no more often."""


@dataclass
class Trained:
    """What a training did; filled as it goes, so that it holds what there is when it is interrupted."""

    loss: list[tuple[int, float]] = field(default_factory=list)
    learning_rate: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    """In optimizer steps alone."""
    tracked_seconds: float = 0.0
    """Of those, in steps that were slowed by following their memory."""
    num_steps: int = 0
    num_samples: int = 0
    num_tokens: int = 0
    num_timed_steps: int = 0
    num_timed_samples: int = 0
    num_timed_tokens: int = 0
    num_timed_rows: int = 0
    """Tokens that the model was given: one of each example where it reads but one."""
    num_timed_pairs: int = 0
    """Pairs of tokens of one example, each with each."""
    flops: StepFlops = field(default_factory=StepFlops)
    """Of the tracked steps."""
    micro_batch_size: int | None = None
    stopped_at: int | None = None
    best_step: int | None = None

    def rates(self) -> dict[str, float]:
        """Return steps, samples and tokens a second, of the steps that nothing slowed where there were such."""
        seconds = self.seconds - self.tracked_seconds
        counts = (self.num_timed_steps, self.num_timed_samples, self.num_timed_tokens)
        if not self.num_timed_steps:
            seconds, counts = self.seconds, (self.num_steps, self.num_samples, self.num_tokens)
        if not seconds:
            return {}
        names = ("steps_per_second", "samples_per_second", "tokens_per_second")
        rates = {name: count / seconds for name, count in zip(names, counts, strict=True)}
        if self.num_timed_steps:
            rates["flops_per_second"] = self.flops.of(self.num_timed_rows, self.num_timed_pairs) / seconds
        return rates

    @property
    def curves(self) -> Curves:
        """The curves, for the record."""
        return Curves(loss=self.loss, learning_rate=self.learning_rate, validation=self.validation)


def train(
    model: Any,
    strategy: Strategy,
    batches: Collated,
    training: Training,
    seed: int,
    accelerator: Any,
    validate: Callable[[], float],
    memory: PhaseMemory,
    reporter: Reporter,
    trained: Trained,
    head: Head | None = None,
) -> None:
    """Train `model` in place, telling `trained` and `reporter` as it goes.

    Args:
        model: the assembled model; its trainable parameters are trained.
        strategy: what was applied to it; it may have something to do at each step.
        batches: of the training examples.
        training: the recipe's section.
        seed: of the order of the examples and of dropout, whatever the strategy drew before.
        accelerator: accelerate's, for the device, autocast, scaling and clipping.
        validate: returns the main metric on the validation split; its time is not counted.
        memory: measures the training's peak.
        reporter: told of every step.
        trained: filled with curves, counts and times.
        head: of the task; it says what the loss is, and which validations are better. Left out: that of a classification.

    Raises:
        OutOfMemoryError: one example at a time does not fit.
        TrainingError: the loss is not a number.
    """
    data = batches.data
    steps_per_epoch = -(-len(data) // training.batch_size)
    num_steps = min(steps_per_epoch * training.epochs, training.max_steps or steps_per_epoch * training.epochs)
    optimizer = make_optimizer(model, training)
    schedule = make_schedule(optimizer, training, num_steps)
    if (
        accelerator.scaler is not None
    ):  # accelerate's own step looks for packages every time, and is of use for fp16 alone
        optimizer = accelerator.prepare_optimizer(optimizer)
    head = head or head_of(TextClassification(), training=training)
    stepper = Stepper(model, strategy, batches, head, optimizer, accelerator, training, training.asked_micro_batch_size)
    best = BestState(training.patience, head.task.greater_is_better) if training.patience else None
    parts = training.evaluations_per_epoch
    evaluated_after = {round(steps_per_epoch * part / parts) for part in range(1, parts + 1)} - {0}
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model.train()
    strategy.begin_training(model, num_steps)
    meter = _Meter(stepper, memory, reporter, trained, batches, num_steps)
    with meter:
        for epoch in range(training.epochs):
            batches_of = shuffled_batches if epoch else first_epoch
            planned = batches_of(data.lengths, training.batch_size, order, training.length_bucketing)
            for position, batch in enumerate(planned, 1):
                _step(stepper, batch, memory, meter, optimizer)
                schedule.step()
                last = meter.num_steps == num_steps
                if last or position in evaluated_after:
                    meter.pause()
                    value = validate()
                    trained.validation.append((trained.num_steps, value))
                    if best and best.saw(model, value, trained.num_steps) and not last:
                        trained.stopped_at = trained.num_steps
                        last = True
                    meter.resume()
                if last:
                    if best:
                        best.restore(model)
                        trained.best_step = best.step
                    optimizer.zero_grad(set_to_none=True)
                    accelerator.free_memory()  # it keeps the optimizer, whose state would count in the evaluation's peak
                    return


def _step(stepper: Stepper, batch: list[int], memory: PhaseMemory, meter: _Meter, optimizer: Any) -> None:
    """Take one step, with half the micro-batch as often as memory runs out, and count it."""
    follow = meter.num_steps < FOLLOWED_STEPS
    rate = optimizer.param_groups[0]["lr"]
    may_overflow = stepper.accelerator.scaler is not None and stepper.strategy.acts_after_steps
    while True:
        tracking = memory.tracked(lambda: tensors_of(stepper.model, optimizer)) if follow else nullcontext()
        try:
            flops, tokens, pairs = StepFlops(), stepper.tokens, stepper.pairs
            with tracking, FlopCounting(flops) if follow else nullcontext():
                loss = stepper.step(batch)
                if may_overflow:
                    stepper.forget_overflow()
                stepper.strategy.after_step(stepper.model, meter.num_steps + 1)
            flops.tokens, flops.pairs = stepper.tokens - tokens, stepper.pairs - pairs
            break
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if meter.num_steps == 0:
                optimizer.state.clear()  # what an update that broke off has half made
            too_much = f"one example at a time does not fit: {str(error).splitlines()[0]}"
        if not stepper.halve():
            raise OutOfMemoryError(too_much)
    meter.took_step(batch, loss, rate, flops if follow else None)


class _Meter:
    """Times steps and measures their memory; reads losses now and then, so that no step waits for its own.

    What it has read is in `trained` and was told to `reporter`. Use it as a context, and pause it while something else runs.
    """

    def __init__(
        self,
        stepper: Stepper,
        memory: PhaseMemory,
        reporter: Reporter,
        trained: Trained,
        batches: Collated,
        num_steps: int,
    ) -> None:
        self._stepper, self._memory, self._reporter, self._trained = stepper, memory, reporter, trained
        self._lengths, self._num_steps = batches.data.lengths, num_steps
        self._rows = [1] * len(self._lengths) if batches.is_one_row else self._lengths
        self._pending: list[tuple[list[int], torch.Tensor, float]] = []
        self._measured: AbstractContextManager[None] = nullcontext()
        self._since = 0.0

    def __enter__(self) -> None:
        self.resume()

    def __exit__(self, *error: object) -> None:
        self._measured.__exit__(None, None, None)
        self._measured = nullcontext()
        if error and error[0] is not None:
            with suppress(Exception):  # the device may be what failed
                self._read(None)

    @property
    def num_steps(self) -> int:
        """The steps that were taken."""
        return self._trained.num_steps + len(self._pending)

    def resume(self) -> None:
        """Measure from now on."""
        self._measured = self._memory.measured()
        self._measured.__enter__()
        self._since = time.perf_counter()

    def pause(self) -> None:
        """Read what is there to be read, and measure no more."""
        self._read(None)
        self.__exit__()

    def took_step(self, batch: list[int], loss: torch.Tensor, rate: float, flops: StepFlops | None) -> None:
        """Count a step; one that was followed, for its memory and its `flops`, is counted apart, for that slows it."""
        self._pending.append((batch, loss, rate))
        if flops or time.perf_counter() - self._since > _READ_EVERY_SECONDS:
            self._read(flops)

    def _read(self, flops: StepFlops | None) -> None:
        """Wait for the steps that are not read yet, and tell of them.

        Raises:
            TrainingError: a loss is not a number.
        """
        if not self._pending:
            return
        trained = self._trained
        losses = self._stepper.read([loss for _, loss, _ in self._pending])
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        num_samples = sum(len(batch) for batch, _, _ in self._pending)
        num_tokens = sum(self._lengths[index] for batch, _, _ in self._pending for index in batch)
        trained.seconds += seconds
        trained.num_samples += num_samples
        trained.num_tokens += num_tokens
        if flops:
            trained.tracked_seconds += seconds
            trained.flops += flops
        else:
            rows = [self._rows[index] for batch, _, _ in self._pending for index in batch]
            trained.num_timed_rows += sum(rows)
            trained.num_timed_pairs += sum(length**2 for length in rows)
            trained.num_timed_steps += len(losses)
            trained.num_timed_samples += num_samples
            trained.num_timed_tokens += num_tokens
        trained.micro_batch_size = self._stepper.micro_batch_size
        pending, self._pending = self._pending, []
        for loss, (_, _, rate) in zip(losses, pending, strict=True):
            self._stepper.check(loss)
            trained.num_steps += 1
            trained.loss.append((trained.num_steps, round(loss, 6)))
            trained.learning_rate.append((trained.num_steps, rate))
        _report(self._reporter, trained, self._num_steps, self._memory)


def _report(reporter: Reporter, trained: Trained, num_steps: int, memory: PhaseMemory) -> None:
    recent = [loss for _, loss in trained.loss[-20:]]
    peak = memory.peak
    used = peak.peak_reserved_bytes or peak.peak_resident_bytes
    detail = (
        f"loss {sum(recent) / len(recent):.3f}  {trained.num_samples / trained.seconds:.0f} samples/s"
        f"  memory {format_bytes(used)}"
    )
    reporter.progress("training", trained.num_steps, num_steps, detail)
