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


def sets_table(
    names: Sequence[str],
    labels: Sequence[Sequence[int]],
    predicted: Sequence[Sequence[int]],
    probabilities: Sequence[Sequence[float]],
) -> Table:
    """Return each example's classes, those predicted, both with commas between them, and the probability of each."""

    def told(row: Sequence[int]) -> str:
        return ",".join(name for name, one in zip(names, row, strict=True) if one)

    rows = [
        [told(label), told(guess), *(f"{share:.6f}" for share in shares)]
        for label, guess, shares in zip(labels, predicted, probabilities, strict=True)
    ]
    return Table(["labels", "predicted", *(f"p({name})" for name in names)], rows)


def number_table(labels: Sequence[float], predicted: Sequence[float]) -> Table:
    """Return each example's number, and the one predicted."""
    rows = [[f"{label:.8g}", f"{guess:.8g}"] for label, guess in zip(labels, predicted, strict=True)]
    return Table(["number", "predicted"], rows)


def tags_table(labels: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Table:
    """Return each sentence's tags, and those predicted, with spaces between them."""
    rows = [[" ".join(label), " ".join(guess)] for label, guess in zip(labels, predicted, strict=True)]
    return Table(["tags", "predicted"], rows)


def answers_table(
    answers: Sequence[Sequence[str]], predicted: Sequence[str], exact: Sequence[float], f1: Sequence[float]
) -> Table:
    """Return each question's first accepted answer, the one predicted, and how well they agree; empty: there is none."""
    rows = [
        [accepted[0] if accepted else "", told, f"{one:g}", f"{other:.6f}"]
        for accepted, told, one, other in zip(answers, predicted, exact, f1, strict=True)
    ]
    return Table(["answer", "predicted", "exact", "f1"], rows)


def choices_table(labels: Sequence[int], predicted: Sequence[int], normalised: Sequence[int]) -> Table:
    """Return the number of each example's right choice, of the likeliest, and of the likeliest per byte."""
    rows = [[str(number) for number in row] for row in zip(labels, predicted, normalised, strict=True)]
    return Table(["choice", "likeliest", "predicted"], rows)
