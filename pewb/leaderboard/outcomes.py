"""The predictions beside the records, as what each test example adds to the main metric: what paired tests are made of."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pewb.evaluation.paired import Predictor, SeedNoise
from pewb.evaluation.parts import LABELS, Parts, is_tested, parts_of
from pewb.record import Record


@dataclass(frozen=True)
class Outcome:
    """What became of each test example in one run, in an order that is the same for every run."""

    examples: str
    """Digest of the examples and their labels."""
    parts: Parts
    is_degenerate: bool = False
    """Whether the same was predicted for every example."""


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


def of_runs(runs: Sequence[str], outcomes: Outcomes) -> tuple[str, Predictor] | Untested:
    """Return the digest of the examples, and the predictor that runs which belong together are."""
    found = [outcomes.get(run, Untested("its predictions were not read")) for run in runs]
    known = [one for one in found if isinstance(one, Outcome)]
    if len(known) < len(found):
        return next(one for one in found if isinstance(one, Untested))
    if len({one.examples for one in known}) != 1:
        return Untested("its runs were tested on different examples")
    first = known[0].parts
    if len({one.parts.values.shape for one in known}) != 1:
        return Untested("its runs know different classes")
    stacked = np.stack([one.parts.values for one in known], axis=1)
    is_right_or_wrong = stacked.dtype == bool
    return known[0].examples, Predictor(stacked[..., 0] if is_right_or_wrong else stacked, measure=first.measure)


def seed_noise(rows: Iterable[Sequence[str]], outcomes: Outcomes) -> SeedNoise | None:
    """Return how much the metric varies from seed to seed, over rows that each are given as their runs, if any has several.

    A row with a run that predicts the same for every example is left out: such a collapse would make every other row look unstable.
    """
    found = [of_runs(runs, outcomes) for runs in rows if runs and not has_collapsed(runs, outcomes)]
    return SeedNoise.pooled(one[1].values for one in found if not isinstance(one, Untested))


def tokens_of(runs: Sequence[str], metric: str | None, outcomes: Outcomes) -> str | None:
    """Return the digest of the tokens over which `runs` have their loss; None of another metric, or where it is not known.

    Another tokenizer or another `training.max_tokens` makes other tokens of the same texts, and a loss is for each token.
    """
    outcome = outcomes.get(runs[0]) if runs and metric == "loss" else None
    return outcome.examples if isinstance(outcome, Outcome) else None


def has_collapsed(runs: Iterable[str], outcomes: Outcomes) -> bool:
    """Return whether one of `runs` predicts the same for every example."""
    found = (outcomes.get(run) for run in runs)
    return any(isinstance(one, Outcome) and one.is_degenerate for one in found)


def _outcome(record: Record, folder: Path) -> Outcome | Untested:
    metric = record.main_metric
    if metric is None or not is_tested(metric):
        return Untested(no_test(metric))
    if record.predictions is None:
        return Untested("the record names no predictions")
    try:
        with (folder / record.predictions).open(encoding="utf-8", newline="") as file:
            header, *lines = list(csv.reader(file))
        if not lines:
            return Untested(f"{record.predictions} does not give the recorded {metric}")
        named = next(name for name in LABELS if name in header)
        place = header.index(named)
        lines.sort(key=lambda line: (line[0], line[place], line))
        columns = dict(zip(header, zip(*lines, strict=True), strict=True))
        parts = parts_of(metric, columns)
        value = float(parts.measure(parts.values.mean(0)))
    except OSError:
        return Untested(f"{record.predictions} is missing")
    except (ValueError, IndexError, KeyError, StopIteration):
        return Untested(f"{record.predictions} is damaged")
    allowed = 0.5 / len(lines) if parts.values.dtype == bool else _ROUNDING
    if not abs(value - record.metrics[metric].value) <= allowed:
        return Untested(f"{record.predictions} does not give the recorded {metric}")
    content = "\n".join(f"{line[0]}\t{line[place]}" for line in lines)
    predicted = set(columns.get("predicted", ("", "x")))
    if named == "tags":
        predicted = {tag for tags in predicted for tag in tags.split()}
    is_degenerate = len(predicted) == 1
    return Outcome(hashlib.sha256(content.encode()).hexdigest(), parts, is_degenerate)


_ROUNDING = 1e-4
"""By how much a metric of numbers as they are written may differ from the recorded one."""
