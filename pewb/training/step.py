"""One optimizer step: micro-batches, a loss normalised over the whole batch, clipping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from pewb.batching import Batches
from pewb.errors import TrainingError
from pewb.heads import Head
from pewb.recipe import Training
from pewb.strategies import Strategy


@dataclass
class Stepper:
    """Takes optimizer steps over `batches`."""

    model: Any
    strategy: Strategy
    batches: Batches
    head: Head
    optimizer: Any
    accelerator: Any
    training: Training
    micro_batch_size: int
    tokens: int = 0
    """That the model was given in all steps, padding included."""
    pairs: int = 0
    """Of tokens in one row."""

    def step(self, batch: Sequence[int]) -> torch.Tensor:
        """Take one step over the examples `batch` and return their mean loss: over the examples, or over the target tokens.

        The loss stays on the device, and nothing here waits for it: `read` does.

        The sum of the losses is divided by the weight of the whole batch in every micro-batch, so that splitting does not
        change the gradient, however the target tokens are spread. A strategy's penalty adds to the gradient, not to the loss that is told: the losses of
        different strategies are compared.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.accelerator.device)
        weight = self.batches.weight(batch)
        for start in range(0, len(batch), self.micro_batch_size):
            indices = batch[start : start + self.micro_batch_size]
            loss = self._losses(indices) / weight
            self.accelerator.backward(loss)
            total += loss.detach()
        del loss  # and what hangs on it, before the optimizer needs room
        penalty = self.strategy.penalty(self.model)
        if penalty is not None:
            self.accelerator.backward(penalty)
        self.accelerator.clip_grad_norm_(self._trained, self.training.max_grad_norm)
        self.optimizer.step()
        return total

    def forget_overflow(self) -> None:
        """Put zeros in the place of gradients that are no numbers, as they may be in fp16: such a step has updated nothing."""
        for parameter in self._trained:
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)

    def read(self, losses: Sequence[torch.Tensor]) -> list[float]:
        """Return the numbers of `losses`, which the device has computed by then."""
        return torch.stack(list(losses)).tolist()  # type: ignore[no-any-return]

    def check(self, loss: float) -> None:
        """See that a loss is a number.

        Raises:
            TrainingError: it is not.
        """
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss}: try a lower training.learning_rate (it is {self.training.learning_rate:g}),"
                ' more training.warmup_ratio, or training.precision = "fp32"'
            )

    @cached_property
    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _losses(self, indices: Sequence[int]) -> torch.Tensor:
        """Return the sum of the losses; nothing else of the forward is held by a name here."""
        inputs, labels = self.batches(indices)
        rows, width = inputs["input_ids"].shape
        self.tokens += rows * width
        self.pairs += rows * width**2
        with self.accelerator.autocast():
            return self.head.losses(self.model, inputs, labels)

    def halve(self) -> bool:
        """Halve the micro-batch after running out of memory; False if one example at a time was too much."""
        self.optimizer.zero_grad(set_to_none=True)
        if (
            self.accelerator.scaler is not None
        ):  # it may have scaled these gradients back already, which it does once a step
            self.accelerator.scaler.scale(torch.zeros((), device=self.accelerator.device))  # or not have begun
            self.accelerator.scaler.update(self.accelerator.scaler.get_scale())
        if self.micro_batch_size == 1:
            return False
        self.micro_batch_size = (self.micro_batch_size + 1) // 2
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        return True
