"""Which examples make a batch, which share a row, and in which order batches come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

FOLLOWED_STEPS = 2
"""Steps whose memory is followed on a CPU: the first has no optimizer state yet, the second has. The largest batches are theirs."""

_BATCHES_SORTED_TOGETHER = 50
"""Length is sorted within so many batches at a time, so that batches differ from epoch to epoch."""


def packed_rows(lengths: Mapping[int, int]) -> list[list[int]]:
    """Return which examples share a row no longer than the longest of them: the longest first, each in the first row with room."""
    capacity = max(lengths.values())
    rows: list[list[int]] = []
    room: list[int] = []
    for example in sorted(lengths, key=lambda one: -lengths[one]):
        place = next((number for number, left in enumerate(room) if left >= lengths[example]), None)
        if place is None:
            place = len(rows)
            rows.append([])
            room.append(capacity)
        rows[place].append(example)
        room[place] -= lengths[example]
    return rows


def shuffled_batches(
    lengths: Sequence[int], batch_size: int, generator: torch.Generator, bucketing: bool
) -> list[list[int]]:
    """Return one epoch's batches of example numbers, in random order; with `bucketing`, of like length.

    The order depends on `generator` alone, so that every strategy sees the same batches.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    if bucketing:
        span = batch_size * _BATCHES_SORTED_TOGETHER
        parts = [order[start : start + span] for start in range(0, len(order), span)]
        order = [index for part in parts for index in sorted(part, key=lambda index: -lengths[index])]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [batches[number] for number in torch.randperm(len(batches), generator=generator).tolist()]


def first_epoch(
    lengths: Sequence[int], batch_size: int, generator: torch.Generator, bucketing: bool
) -> list[list[int]]:
    """Return the batches of the first epoch: those of `shuffled_batches`, the largest as `longest_first` has it."""
    return longest_first(shuffled_batches(lengths, batch_size, generator, bucketing), lengths, FOLLOWED_STEPS)


def longest_first(batches: list[list[int]], lengths: Sequence[int], count: int) -> list[list[int]]:
    """Move the `count` batches that hold the most padded tokens to the front, the largest of all last, so that memory peaks at once.

    With two the largest finds the optimizer's state, which the first step makes.
    """
    size = [len(batch) * max(lengths[index] for index in batch) for batch in batches]
    front = sorted(range(len(batches)), key=lambda number: -size[number])[:count][::-1]
    return [batches[number] for number in front] + [
        batch for number, batch in enumerate(batches) if number not in set(front)
    ]


def by_length(lengths: Sequence[int]) -> list[int]:
    """Return the numbers of the examples, the longest first."""
    return sorted(range(len(lengths)), key=lambda index: -lengths[index])
