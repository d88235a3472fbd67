"""The predictions beside the records, as right or wrong for each test example: what paired tests are made of."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pewb.evaluation.paired import SeedNoise
from pewb.record import Record


@dataclass(frozen=True)
class Outcome:
    """What became of each test example in one run, in an order that is the same for every run."""

    examples: str
    """Digest of the examples and their labels."""
    correct: np.ndarray
    """(examples,), whether it was predicted rightly."""
    is_degenerate: bool = False
    """Whether one class was predicted for every example."""


@dataclass(frozen=True)
class Untested:
    """Why a run or a row can't be tested."""

    reason: str


Outcomes = Mapping[str, Outcome | Untested]
"""By the run's name."""


def no_test(metric: str | None) -> str:
    """Return why rows that are ranked by `metric` are not tested."""
    return f"there is no paired test for {metric}"


def read_outcomes(records: Iterable[Record], folder: str | Path) -> Outcomes:
    """Read the predictions of every successful run from `folder`; where that can't be, say why."""
    return {record.run: _outcome(record, Path(folder)) for record in records if record.status == "success"}


def of_runs(runs: Sequence[str], outcomes: Outcomes) -> tuple[str, np.ndarray] | Untested:
    """Return the digest of the examples and right or wrong (examples, runs) of runs that belong together."""
    found = [outcomes.get(run, Untested("its predictions were not read")) for run in runs]
    known = [one for one in found if isinstance(one, Outcome)]
    if len(known) < len(found):
        return next(one for one in found if isinstance(one, Untested))
    if len({one.examples for one in known}) != 1:
        return Untested("its runs were tested on different examples")
    return known[0].examples, np.stack([one.correct for one in known], axis=1)


def seed_noise(rows: Iterable[Sequence[str]], outcomes: Outcomes) -> SeedNoise | None:
    """Return how much accuracy varies from seed to seed, over rows that each are given as their runs, if any has several.

    A row with a run that predicts one class only is left out: such a collapse would make every other row look unstable.
    """
    stable = [runs for runs in rows if not any(_is_degenerate(outcomes.get(run)) for run in runs)]
    found = [of_runs(runs, outcomes) for runs in stable if runs]
    return SeedNoise.pooled(one[1] for one in found if not isinstance(one, Untested))


def _is_degenerate(outcome: Outcome | Untested | None) -> bool:
    return isinstance(outcome, Outcome) and outcome.is_degenerate


def _outcome(record: Record, folder: Path) -> Outcome | Untested:
    if record.main_metric != "accuracy":
        return Untested(no_test(record.main_metric))
    if record.predictions is None:
        return Untested("the record names no predictions")
    try:
        with (folder / record.predictions).open(encoding="utf-8", newline="") as file:
            header, *lines = list(csv.reader(file))
        if header[:3] != ["example", "label", "predicted"]:
            raise ValueError
        rows = sorted((line[0], line[1], line[1] == line[2]) for line in lines)
    except OSError:
        return Untested(f"{record.predictions} is missing")
    except (ValueError, IndexError):
        return Untested(f"{record.predictions} is damaged")
    right = [is_right for _, _, is_right in rows]
    accuracy = record.metrics["accuracy"].value
    if not right or abs(sum(right) / len(right) - accuracy) * len(right) > 0.5:
        return Untested(f"{record.predictions} does not give the recorded accuracy")
    content = "\n".join(f"{example}\t{label}" for example, label, _ in rows)
    is_degenerate = len({line[2] for line in lines}) == 1
    return Outcome(hashlib.sha256(content.encode()).hexdigest(), np.array(right), is_degenerate)
