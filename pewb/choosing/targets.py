"""Which devices a choice is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from pewb.errors import InputError
from pewb.planner.target import Target, choose_target, limited
from pewb.recipe import DeviceSection
from pewb.units import parse_bytes

LADDER = tuple(f"{size}GiB" for size in (4, 6, 8, 12, 16, 24, 40, 48, 80))
"""Memory sizes of GPUs, smallest first."""


def targets_of(sections: Sequence[DeviceSection], gpu: str | None = None, memory: Sequence[str] = ()) -> list[Target]:
    """Return the targets that a user asks for: a GPU by name, GPUs by their memory, or else the ladder's.

    `sections` are those of a recipe's rows; if nothing else is asked for, memory that all of them name alike is what this
    machine's device has, as in a plan and a run.

    Raises:
        InputError: no such GPU is known, a text is no size, or both are given.
    """
    if gpu is not None and memory:
        raise InputError("--gpu and --gpu-memory: give one of the two")
    if gpu is not None:
        return [choose_target(sections[0], gpu)]
    named = {section.memory_bytes for section in sections}
    if not memory and len(named) == 1 and named != {None}:
        return [limited(choose_target(sections[0]), sections[0])]
    sizes = memory or LADDER
    each = {parse_bytes(size): size for size in reversed(sizes)}  # a size that is given twice, in other words, is one
    return [choose_target(sections[0], None, size) for size in reversed(each.values())]
