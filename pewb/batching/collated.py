"""From tokenised examples to a model's inputs: padded, or packed, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch

from pewb.batching.encoded import IGNORED, Encoded
from pewb.batching.order import packed_rows
from pewb.batching.ragged import Ragged, ragged
from pewb.device import moved

STATES = "prefix_states"
"""Under this name a batch's inputs hold cached states; a model whose frozen layers were cut out takes them there."""

Inputs = dict[str, torch.Tensor]


class Batches(Protocol):
    """Where a step's inputs come from: real examples, or virtual ones that only have shapes."""

    def weight(self, indices: Sequence[int]) -> float:
        """Return what the examples' losses weigh together; the mean is over this."""
        ...

    def __call__(self, indices: Sequence[int]) -> tuple[Inputs, torch.Tensor]:
        """Return the model's inputs and the labels of a micro-batch, on the device; labels that are tokens on the host."""
        ...


@dataclass
class Collated:
    """Batches of tokenised examples, padded to the longest."""

    tokenizer: Any
    data: Encoded
    device: torch.device
    packing: bool = False
    """Put several short examples into one row, of which none sees another; only for labels that are tokens."""
    states: Ragged | None = None
    """What the frozen layers make of each example, (tokens, hidden) or (1, hidden), where that is cached."""
    _columns: dict[str, tuple[Ragged, int]] = field(init=False)
    """The inputs' columns, each with what pads it."""
    _labels: torch.Tensor | Ragged = field(init=False)

    def __post_init__(self) -> None:
        """Take the examples out of their table."""
        table = self.data.features.with_format("arrow")[:]
        found = {name: ragged(table[name]) for name in table.column_names if not name.startswith("_")}
        self._labels = found.pop("labels", None) or torch.tensor(self.data.labels)
        paddings = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        self._columns = {name: (column, paddings.get(name, 0)) for name, column in found.items()}

    def weight(self, indices: Sequence[int]) -> float:
        """Return the number of examples, or of target tokens, or what they weigh; never 0, for a batch may have no target."""
        return sum(self.data.weights[index] for index in indices) or 1

    def __call__(self, indices: Sequence[int]) -> tuple[Inputs, torch.Tensor]:
        """Return the model's inputs, each (batch, tokens), and the labels: classes, (batch,), or tokens, (batch, tokens).

        Labels that are tokens are padded with `IGNORED` on the right. Of examples whose cached states are one row, which
        is the first token's, the model is given that token alone.
        """
        if self.packing:
            return self._packed(indices)
        chosen = torch.as_tensor(indices)
        side = self.tokenizer.padding_side
        columns, labels = self._columns, self._labels
        if self.is_one_row:
            inputs = {name: column.values[column.starts[chosen], None] for name, (column, _) in columns.items()}
        else:
            inputs = {name: column.padded(chosen, side, padding) for name, (column, padding) in columns.items()}
        if self.states is not None:
            inputs[STATES] = self.states.padded(chosen, side, None)
        if isinstance(labels, Ragged):
            assert side == "right"
            told = labels.padded(chosen, "right", IGNORED)  # it stays where it can be read without waiting
        else:
            told = moved(labels[chosen], self.device)
        return {name: moved(_as_numbers(tensor), self.device) for name, tensor in inputs.items()}, _as_numbers(told)

    def _packed(self, indices: Sequence[int]) -> tuple[Inputs, torch.Tensor]:
        """Return the examples in fewer rows, no longer than the longest example; positions start anew in each example.

        There is no mask: transformers' attentions tell the examples of a row apart by their positions. What fills a row up is an
        example of its own, without a target.
        """
        groups = packed_rows({index: self.data.lengths[index] for index in indices})
        ids, padding = self._columns["input_ids"]
        inputs = {"input_ids": ids.packed(groups, padding), "position_ids": self._positions.packed(groups, -1)}
        filling = inputs["position_ids"] < 0
        inputs["position_ids"] += filling.cumsum(1)  # -1 + 1, -1 + 2, …
        if self.states is not None:
            inputs[STATES] = self.states.packed(groups, None)
        assert isinstance(self._labels, Ragged)
        labels = _as_numbers(self._labels.packed(groups, IGNORED))
        return {name: moved(_as_numbers(tensor), self.device) for name, tensor in inputs.items()}, labels

    @cached_property
    def _positions(self) -> Ragged:
        """Each token's place in its example."""
        lengths = self._columns["input_ids"][0].lengths
        return Ragged(torch.cat([torch.arange(length, dtype=torch.int32) for length in lengths]), lengths)

    @cached_property
    def is_one_row(self) -> bool:
        """Whether the model is given the first token of each example alone."""
        return self.states is not None and bool((self.states.lengths == 1).all())


def _as_numbers(tensor: torch.Tensor) -> torch.Tensor:
    """Return whole numbers, which are kept short, as PyTorch's functions want them."""
    return tensor if tensor.is_floating_point() else tensor.long()
