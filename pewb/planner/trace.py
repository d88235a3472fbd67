"""What a virtual run takes and gives back, change by change, and the moment at which it holds the most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Category = Literal["weights", "gradients", "optimizer", "activations", "temporaries"]
CATEGORIES: tuple[Category, ...] = ("weights", "gradients", "optimizer", "activations", "temporaries")


class Change(NamedTuple):
    """A storage takes so many bytes from now on, or counts for something else."""

    storage: int
    size: int
    category: Category
    operation: str
    module: str
    """In which the operation is; empty outside of the model."""
    layer: int | None
    """That the change belongs to; None: to none."""
    sweep: int
    """Changes of one number that follow each other go through the layers once, or not at all."""


@dataclass(frozen=True)
class Moment:
    """The live bytes at their largest."""

    total: int = 0
    by_category: dict[Category, int] = field(default_factory=dict)
    operation: str = ""
    module: str = ""


def peak_of(trace: Iterable[Change], granule: int) -> Moment:
    """Return the first moment at which `trace` holds the most, in bytes of an allocator that gives out `granule` at once."""
    held: dict[int, tuple[int, Category]] = {}
    by_category: dict[Category, int] = dict.fromkeys(CATEGORIES, 0)
    total = most = 0
    at, peak = None, dict(by_category)
    for change in trace:
        size, category = held.pop(change.storage, (0, change.category))
        by_category[category] -= size
        rounded = -(-change.size // granule) * granule
        total += rounded - size
        if rounded:
            held[change.storage] = rounded, change.category
            by_category[change.category] += rounded
        if total > most:
            most, at, peak = total, change, by_category.copy()
    return Moment(most, peak, at.operation if at else "", at.module if at else "")


def repeated(part: Sequence[Change], before: Sequence[Change], trace: Sequence[Change]) -> Iterator[Change]:
    """Yield `part` of a trace as it goes when it is done again: what it makes is other than what it made at first."""
    kept = {change.storage for change in before}
    storages = max((change.storage for change in trace), default=0)
    sweeps = max((change.sweep for change in trace), default=0)
    for change in part:
        storage = change.storage if change.storage in kept else change.storage + storages
        yield change._replace(storage=storage, sweep=change.sweep + sweeps)
