"""Rows of unlike lengths, and how they are padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class Ragged:
    """Rows of unlike lengths, one after another in one tensor."""

    def __init__(self, values: torch.Tensor, lengths: torch.Tensor) -> None:
        """Hold `values`, (all rows' entries, ...), of rows with `lengths`, (rows,)."""
        self.values = values
        self.lengths = lengths
        self.starts = lengths.cumsum(0) - lengths

    def padded(self, indices: torch.Tensor, side: str, padding: int | None) -> torch.Tensor:
        """Return rows as (rows, longest, ...), filled on `side` with `padding`; None: with copies of entries, to be masked."""
        lengths = self.lengths[indices, None]
        places = torch.arange(int(lengths.max()))
        if side == "left":
            places = places + lengths - len(places)
        inside = places.clamp(min=0).minimum(lengths - 1).clamp_(min=0) + self.starts[indices, None]
        found = self.values[inside.clamp_(max=len(self.values) - 1).flatten()].unflatten(0, inside.shape)
        if padding is None:
            return found
        return found.masked_fill_((places < 0) | (places >= lengths), padding)

    def packed(self, groups: Sequence[Sequence[int]], padding: int | None) -> torch.Tensor:
        """Return the rows of each group one after another, (groups, longest, ...), filled as `padded` does on the right."""
        places = [torch.cat([torch.arange(self.lengths[one]) + self.starts[one] for one in group]) for group in groups]
        return Ragged(self.values[torch.cat(places)], torch.tensor([len(one) for one in places])).padded(
            torch.arange(len(groups)), "right", padding
        )


def ragged(column: Any) -> Ragged:
    """Return an Arrow column of lists of integers."""
    import pyarrow.compute

    values = torch.tensor(pyarrow.compute.list_flatten(column).to_numpy())
    is_mask = len(values) > 0 and set(values.unique().tolist()) <= {0, 1}
    values = values.to(torch.int8 if is_mask else torch.int32)
    return Ragged(values, torch.tensor(pyarrow.compute.list_value_length(column).to_numpy(), dtype=torch.long))
