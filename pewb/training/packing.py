"""Packing: whether a model keeps the examples of a row apart is seen before it is trained so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch

from pewb.batching import Collated
from pewb.errors import RefusedError
from pewb.objective import Objective

_EXAMPLES = 4


@torch.no_grad()
def check_packing(
    model: Any, batches: Collated, objective: Objective, autocast: Callable[[], AbstractContextManager[Any]]
) -> None:
    """See that a few examples cost the same in one row as in rows of their own, to half a percent (bfloat16 rounds).

    Raises:
        RefusedError: they do not: the model does not tell them apart.
    """
    lengths = batches.data.lengths
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    chosen = list(dict.fromkeys([*order[:_EXAMPLES], order[-1]]))
    was_training = model.training
    model.eval()
    losses = []
    for source in (replace(batches, packing=False), batches):
        with autocast():
            try:
                losses.append(float(objective.losses(model, *source(chosen))))
            except (TypeError, ValueError, RuntimeError, IndexError):
                losses.append(float("nan"))  # it takes no positions, or wants a mask
    model.train(was_training)
    apart, packed = losses
    if not abs(packed - apart) <= 0.005 * abs(apart):
        raise RefusedError(
            "training.packing: with this backbone and strategy an example sees the others in its row, or has no positions of"
            " its own; leave packing out"
        )
