"""The loss of target tokens in pieces, so that the logits, the largest tensor of a language model's step, are never there at once.

At 4 x 768 tokens and a vocabulary of 128,000 they would take 1.6 GB in float32, and as much again for their gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_PIECE_BYTES = 64 * 2**20
"""Of float32 logits at a time."""
_FEWEST_ROWS = 64


def token_losses(
    states: torch.Tensor, head: nn.Module, targets: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return the cross-entropy of each row, (rows,), in float32, without gradients.

    Args:
        states: what the head reads, (rows, hidden).
        head: makes logits of it, (rows, vocabulary).
        targets: the right tokens, (rows,).
        label_smoothing: how much of the target is spread over the vocabulary.
    """
    with torch.no_grad():
        pieces = [
            functional.cross_entropy(
                head(piece).float(), targets[place], reduction="none", label_smoothing=label_smoothing
            )
            for place, piece in _pieces(states, head)
        ]
    return torch.cat(pieces) if pieces else states.new_zeros(0, dtype=torch.float32)


def summed_token_loss(
    states: torch.Tensor, head: nn.Module, targets: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return the sum of `token_losses`, with gradients for the states and for what the head trains."""
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    total: torch.Tensor = _Summed.apply(states, head, targets, label_smoothing, *trained)
    return total


class _Summed(torch.autograd.Function):
    """Takes the gradient of each piece at once, while its logits are there; the backward only scales it."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, head: nn.Module, targets: torch.Tensor, smoothing: float, *trained: torch.Tensor
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        reads = states.requires_grad
        of_states = torch.empty_like(states) if reads else None
        of_trained = [torch.zeros_like(parameter) for parameter in trained]
        for place, piece in _pieces(states, head):
            with torch.enable_grad():
                piece = piece.detach().requires_grad_(reads)
                logits = head(piece).float()
                loss = functional.cross_entropy(logits, targets[place], reduction="sum", label_smoothing=smoothing)
            del logits
            total += loss.detach()
            wanted = [piece, *trained] if reads else list(trained)
            found = list(torch.autograd.grad(loss, wanted, allow_unused=True)) if wanted else []
            if of_states is not None:
                of_states[place] = found.pop(0)
            for so_far, gradient in zip(of_trained, found, strict=True):
                if gradient is not None:
                    so_far += gradient
        ctx.save_for_backward(*([] if of_states is None else [of_states]), *of_trained)
        ctx.reads = reads
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        found = [one * gradients[0].to(one.dtype) for one in ctx.saved_tensors]
        of_states = found.pop(0) if ctx.reads else None
        return (of_states, None, None, None, *found)


def _pieces(states: torch.Tensor, head: nn.Module) -> list[tuple[slice, torch.Tensor]]:
    """Return the rows in pieces whose logits take `_PIECE_BYTES`, each with its place."""
    weight = getattr(head, "weight", None)
    width = states.shape[-1] if weight is None else max(weight.shape)
    size = max(_FEWEST_ROWS, _PIECE_BYTES // (4 * width))
    places = [slice(start, start + size) for start in range(0, len(states), size)]
    return [(place, states[place]) for place in places]


def head_input(model: Any, head: nn.Module, call: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, bool]:
    """Return what `head` reads in `call`, which gives the model's logits, and that it is so; or those logits and False.

    They are not so where the model does more to the logits than the head does (Gemma 2 caps them): it is found out once.
    """
    if getattr(head, "gives_logits", True):
        seen: list[torch.Tensor] = []

        def pass_on(states: torch.Tensor) -> torch.Tensor:
            seen.append(states)
            return states

        head.forward = pass_on
        try:
            output = call()
        finally:
            del head.forward
        if seen and output is seen[-1]:
            return output, True
        head.gives_logits = False
    return call(), False
