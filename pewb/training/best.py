"""Early stopping: remember the best trained weights and go back to them."""

from __future__ import annotations

import torch
from torch import nn


class BestState:
    """The trained weights at the best evaluation so far, on the CPU."""

    def __init__(self, patience: int, greater_is_better: bool = True) -> None:
        """Give up after `patience` evaluations in a row without a better value."""
        self._patience = patience
        self._sign = 1 if greater_is_better else -1
        self._since = 0
        self._value = float("-inf")
        self._weights: dict[str, torch.Tensor] = {}
        self.step: int | None = None

    def saw(self, model: nn.Module, value: float, step: int) -> bool:
        """Take note of an evaluation at `step`; return whether to stop."""
        if self._sign * value > self._value:
            self._value, self.step, self._since = self._sign * value, step, 0
            trained = ((name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad)
            self._weights = {name: tensor.detach().cpu().clone() for name, tensor in trained}
        else:
            self._since += 1
        return self._since >= self._patience

    def restore(self, model: nn.Module) -> None:
        """Put the best weights back."""
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, tensor in self._weights.items():
                parameters[name].copy_(tensor)
