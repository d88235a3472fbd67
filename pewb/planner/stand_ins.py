"""What a training step is given on a virtual device: batches, the optimizer, and what it needs of accelerate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pewb.batching import IGNORED, STATES, Inputs
from pewb.device import Computing
from pewb.heads import Head
from pewb.planner.ledger import Ledger
from pewb.planner.virtual_device import META, VirtualDevice
from pewb.prefix.frozen import Prefix


@dataclass
class VirtualBatches:
    """Batches of the longest examples there may be, as shapes; each is padded, for a mask of ones would be dropped."""

    config: Any
    head: Head
    num_tokens: int
    targets: tuple[int, ...] | None = None
    """As in `Question`."""
    prefix: Prefix | None = None
    """If it was cut out of the model, which then takes its states."""

    def weight(self, indices: Sequence[int]) -> int:
        """Return the number of losses; on virtual numbers any will do."""
        return len(indices)

    def __call__(self, indices: Sequence[int]) -> tuple[Inputs, torch.Tensor]:
        """Return inputs (batch, tokens), and the labels that the head wants."""
        prefix = self.prefix
        shape = (len(indices), 1 if prefix and prefix.is_one_row else self.num_tokens)

        def made(*size: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
            return torch.zeros(size, dtype=dtype, device=META)

        inputs = {"input_ids": made(*shape), "attention_mask": made(*shape)}
        text_config = self.config.get_text_config()
        if getattr(text_config, "type_vocab_size", 0) > 1 or "deberta" in text_config.model_type:
            inputs["token_type_ids"] = made(*shape)
        if prefix:
            inputs[STATES] = made(*shape, prefix.hidden_size, dtype=prefix.dtype)
        return inputs, self._labels(indices)

    def _labels(self, indices: Sequence[int]) -> torch.Tensor:
        """Return blank labels; of tokens the last of each row are targets, as many as are known."""
        if self.targets is None:
            return self.head.blank_labels(len(indices), self.num_tokens, META)
        counts = [self.targets[index % len(self.targets)] for index in indices]
        is_apart = getattr(self.config, "is_encoder_decoder", False)  # its decoder reads the targets alone
        labels = self.head.blank_labels(len(indices), max(counts) if is_apart else self.num_tokens, META)
        for row, count in zip(labels, counts, strict=True):
            row[: max(0, len(row) - count)] = IGNORED
        return labels


class WatchedOptimizer:
    """An optimizer whose state is told to a ledger, with what a step needs of accelerate's."""

    def __init__(self, optimizer: torch.optim.Optimizer, ledger: Ledger) -> None:
        self._optimizer = optimizer
        self._ledger = ledger

    def step(self) -> None:
        """Update, and say what of it is state."""
        self._ledger.end_part()
        self._ledger.category = "temporaries"
        self._optimizer.step()
        self._ledger.begin_sweep()
        for state in self._optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    self._ledger.belongs(value, "optimizer")
        self._ledger.category = "activations"

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Let the gradients go."""
        self._ledger.begin_sweep()
        self._optimizer.zero_grad(set_to_none=set_to_none)

    def forget(self) -> None:
        """Be as before the first step."""
        self.zero_grad()
        self._optimizer.state.clear()


class VirtualAccelerator:
    """What a step needs of accelerate's `Accelerator`, on a virtual device."""

    device = META

    def __init__(self, device: VirtualDevice, computing: Computing, ledger: Ledger) -> None:
        self._device = device
        self._type = computing.compute_type if computing.autocast != "no" else None
        self._ledger = ledger

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in the run's precision; what is made belongs to the activations."""
        self._ledger.category = "activations"
        return self._device.autocast(self._type)

    def backward(self, loss: torch.Tensor) -> None:
        """Compute gradients; what is made on the way is temporary."""
        self._ledger.category = "temporaries"
        torch.autograd.backward(loss)  # Tensor.backward would leave the virtual device
        self._ledger.category = "activations"

    def clip_grad_norm_(self, parameters: list[nn.Parameter], max_norm: float) -> None:
        """Scale gradients down to a norm of at most `max_norm`."""
        self._ledger.category = "temporaries"
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
