"""How parts of a model are computed, where the usual way wastes time: the results are the same."""

from __future__ import annotations

from typing import Any

from pewb.anatomy import Anatomy
from pewb.device import Computing
from pewb.kernels.attention import attend_plainly
from pewb.kernels.dropout import draw_quickly
from pewb.kernels.read_row import compute_read_row
from pewb.kernels.recompute import keep_less

__all__ = ["quicken", "quicken_inserted"]


def quicken(model: Any, anatomy: Anatomy, computing: Computing) -> None:
    """Give the untouched `model` the faster ways of its device, in place."""
    if computing.kind == "cpu":
        attend_plainly(model)
        draw_quickly(model)
    compute_read_row(model, anatomy)
    keep_less(model)


def quicken_inserted(model: Any, computing: Computing) -> None:
    """Do the same for what a strategy inserted.

    PEFT's layers would make their inputs float32, as their weights are, and autocast would undo it.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer  # here, for importing it makes remarks that are silenced by now

    if computing.kind == "cpu":
        draw_quickly(model)
    if computing.autocast != "no":
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                module.cast_input_dtype_enabled = False
