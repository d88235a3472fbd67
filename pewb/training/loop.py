"""The training loop: epochs of batches, evaluation on validation, early stopping, measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from pewb.batching import Collated, Encoded, longest_first, shuffled_batches
from pewb.errors import OutOfMemoryError
from pewb.measurement.memory import PhaseMemory, is_out_of_memory, tensors_of
from pewb.objective import objective_of
from pewb.recipe import Training
from pewb.record import Curves
from pewb.reporting import Reporter
from pewb.strategies import Strategy
from pewb.tasks import TaskFamily, TextClassification
from pewb.training.best import BestState
from pewb.training.optimizers import make_optimizer, make_schedule
from pewb.training.step import Stepper
from pewb.units import format_bytes

TRACKED_STEPS = 2
"""Steps whose memory is followed on a CPU: the first has no optimizer state yet, the second has. The longest come first."""


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
        return {name: count / seconds for name, count in zip(names, counts, strict=True)}

    @property
    def curves(self) -> Curves:
        """The curves, for the record."""
        return Curves(loss=self.loss, learning_rate=self.learning_rate, validation=self.validation)


def train(
    model: Any,
    strategy: Strategy,
    tokenizer: Any,
    data: Encoded,
    training: Training,
    seed: int,
    accelerator: Any,
    validate: Callable[[], float],
    memory: PhaseMemory,
    reporter: Reporter,
    trained: Trained,
    family: type[TaskFamily] = TextClassification,
) -> None:
    """Train `model` in place, telling `trained` and `reporter` as it goes.

    Args:
        model: the assembled model; its trainable parameters are trained.
        strategy: what was applied to it; it may have something to do at each step.
        tokenizer: pads the batches.
        data: the tokenised training examples.
        training: the recipe's section.
        seed: of the order of the examples and of dropout, whatever the strategy drew before.
        accelerator: accelerate's, for the device, autocast, scaling and clipping.
        validate: returns the main metric on the validation split; its time is not counted.
        memory: measures the training's peak.
        reporter: told of every step.
        trained: filled with curves, counts and times.
        family: of the task; it says what the loss is, and which validations are better.

    Raises:
        OutOfMemoryError: one example at a time does not fit.
        TrainingError: the loss is not a number.
    """
    steps_per_epoch = -(-len(data) // training.batch_size)
    num_steps = min(steps_per_epoch * training.epochs, training.max_steps or steps_per_epoch * training.epochs)
    optimizer = make_optimizer(model, training)
    schedule = make_schedule(optimizer, training, num_steps)
    optimizer = accelerator.prepare_optimizer(optimizer)
    batches = Collated(tokenizer, data, accelerator.device)
    objective = objective_of(family, training.label_smoothing)
    stepper = Stepper(
        model, strategy, batches, objective, optimizer, accelerator, training, training.asked_micro_batch_size
    )
    best = BestState(training.patience, family.greater_is_better) if training.patience else None
    parts = training.evaluations_per_epoch
    evaluated_after = {round(steps_per_epoch * part / parts) for part in range(1, parts + 1)} - {0}
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model.train()
    strategy.begin_training(model, num_steps)
    for epoch in range(training.epochs):
        planned = shuffled_batches(data.lengths, training.batch_size, order, training.length_bucketing)
        if epoch == 0:
            planned = longest_first(planned, data.lengths, TRACKED_STEPS)
        for position, batch in enumerate(planned, 1):
            _step(stepper, batch, data.lengths, memory, trained, optimizer)
            schedule.step()
            _report(reporter, trained, num_steps, memory)
            last = trained.num_steps == num_steps
            if last or position in evaluated_after:
                value = validate()
                trained.validation.append((trained.num_steps, value))
                if best and best.saw(model, value, trained.num_steps) and not last:
                    trained.stopped_at = trained.num_steps
                    last = True
            if last:
                if best:
                    best.restore(model)
                    trained.best_step = best.step
                optimizer.zero_grad(set_to_none=True)
                accelerator.free_memory()  # it keeps the optimizer, whose state would count in the evaluation's peak
                return


def _step(
    stepper: Stepper,
    batch: list[int],
    lengths: Sequence[int],
    memory: PhaseMemory,
    trained: Trained,
    optimizer: Any,
) -> None:
    """Take one step, with half the micro-batch as often as memory runs out, and count it."""
    follow = trained.num_steps < TRACKED_STEPS
    rate = optimizer.param_groups[0]["lr"]
    while True:
        started = time.perf_counter()
        tracking = memory.tracked(lambda: tensors_of(stepper.model, optimizer)) if follow else nullcontext()
        try:
            with memory.measured(), tracking:
                loss = stepper.step(batch)
                stepper.strategy.after_step(stepper.model, trained.num_steps + 1)
            break
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if trained.num_steps == 0:
                optimizer.state.clear()  # what an update that broke off has half made
            too_much = f"one example at a time does not fit: {str(error).splitlines()[0]}"
        if not stepper.halve():
            raise OutOfMemoryError(too_much)
    seconds = time.perf_counter() - started
    trained.num_steps += 1
    trained.num_samples += len(batch)
    tokens = sum(lengths[index] for index in batch)
    trained.num_tokens += tokens
    trained.seconds += seconds
    if not follow:
        trained.num_timed_steps += 1
        trained.num_timed_samples += len(batch)
        trained.num_timed_tokens += tokens
    else:
        trained.tracked_seconds += seconds
    trained.micro_batch_size = stepper.micro_batch_size
    trained.loss.append((trained.num_steps, round(loss, 6)))
    trained.learning_rate.append((trained.num_steps, rate))


def _report(reporter: Reporter, trained: Trained, num_steps: int, memory: PhaseMemory) -> None:
    recent = [loss for _, loss in trained.loss[-20:]]
    peak = memory.peak
    used = peak.peak_reserved_bytes or peak.peak_resident_bytes
    detail = (
        f"loss {sum(recent) / len(recent):.3f}  {trained.num_samples / trained.seconds:.0f} samples/s"
        f"  memory {format_bytes(used)}"
    )
    reporter.progress("training", trained.num_steps, num_steps, detail)
