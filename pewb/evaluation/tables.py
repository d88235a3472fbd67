"""Tables of predictions, one row for each test example: what is kept beside a record, and paired tests are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Columns and rows, in the order of the examples."""

    columns: list[str]
    rows: list[list[str]]


def class_table(
    names: Sequence[str], labels: Sequence[int], predicted: Sequence[int], probabilities: Sequence[Sequence[float]]
) -> Table:
    """Return each example's label, its prediction and the probability of each of the classes `names`."""
    rows = [
        [names[label], names[guess], *(f"{share:.6f}" for share in shares)]
        for label, guess, shares in zip(labels, predicted, probabilities, strict=True)
    ]
    return Table(["label", "predicted", *(f"p({name})" for name in names)], rows)


def loss_table(losses: Sequence[float], num_tokens: Sequence[int]) -> Table:
    """Return each example's loss, summed over its target tokens, and their number."""
    rows = [[f"{loss:.6f}", str(count)] for loss, count in zip(losses, num_tokens, strict=True)]
    return Table(["loss", "tokens"], rows)
