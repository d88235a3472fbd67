"""Packing: whether a model keeps the examples of a row apart is seen before it is trained so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch

from pewb.batching import Collated, packed_rows
from pewb.errors import RefusedError
from pewb.heads import Head

_EXAMPLES = 4


@torch.no_grad()
def check_packing(
    model: Any, batches: Collated, head: Head, autocast: Callable[[], AbstractContextManager[Any]]
) -> None:
    """See that a few examples cost the same in one row as in rows of their own, to one percent in each row (bfloat16 rounds).

    Raises:
        RefusedError: they do not: the model does not tell them apart.
    """
    lengths = batches.data.lengths
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    chosen = list(dict.fromkeys([*order[:_EXAMPLES], order[-1]]))
    was_training = model.training
    model.eval()
    groups = packed_rows({index: lengths[index] for index in chosen})
    losses = []
    for source in (replace(batches, packing=False), batches):
        with autocast():
            try:
                losses.append(head.losses(model, *source(chosen), reduction="none").tolist())
            except (TypeError, ValueError, RuntimeError, IndexError):
                losses.append([float("nan")] * len(chosen))  # it takes no positions, or wants a mask
    model.train(was_training)
    alone = dict(zip(chosen, losses[0], strict=True))
    apart = [sum(alone[index] for index in group) for group in groups]
    if not all(abs(packed - one) <= 0.01 * abs(one) for one, packed in zip(apart, losses[1], strict=False)):
        raise RefusedError(
            "training.packing: with this backbone and strategy an example sees the others in its row, or has no positions of"
            " its own; leave packing out"
        )
