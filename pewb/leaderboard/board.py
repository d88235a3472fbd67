"""The leaderboard: groups of rows as a page of Markdown or as JSON."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from pewb.errors import InputError
from pewb.leaderboard.group import Group
from pewb.leaderboard.outcomes import Outcomes, read_outcomes, tokens_of
from pewb.leaderboard.row import Row
from pewb.leaderboard.rows import rows_of
from pewb.record import Record, read_records

_START = """\
# Leaderboard

What each fine-tuning strategy cost and earned, on the same backbone, task and test set.
Drawn from the records in `results/` by `pewb leaderboard`; edits made here are lost.
"""

_EMPTY = """
There is no record yet. Get a first row with

    pewb run recipes/lora_sst2.toml
"""

_NOTES = """
## How to read it

- **Interval.** In brackets, 95 %. One seed: over the test examples. Several seeds: the value is
  their mean, and the half-width is sqrt(test² + seed²): `test` is the mean half-width over the test
  examples (the same for every seed, so more seeds do not shrink it), `seed` is Student's t times
  the standard error over the seeds. Overlapping intervals do not mean that there is no difference.
- **Against the best.** A paired test on the same test examples says whether a row's main metric
  differs from the best row's, beyond what other seeds might bring: a bootstrap over the examples
  with Student's t over the seeds. How much seeds matter is pooled over the rows that have several
  (less those of which a run predicts the same everywhere, or whose seeds differ far more than those
  of the rest); a row whose own seeds differ more is given its own variance and degrees of freedom,
  a classical predictor none. Where no row has a second
  seed, McNemar's exact test says whether the single runs differ (where examples are not right or
  wrong, a bootstrap over them). p is Holm's, corrected for the number of rows tested. "≈": p is 0.05
  or more, so these records can't tell the row apart from the best. That is no proof that they are
  equal: with few seeds much is left open, and "at worst" is the end of the difference's 95 % interval.
  Which row is best was found on the same examples, so where many are equally good, one of them may lead
  by luck and another seem behind: in simulations of three seeds in 3 % of tables of 6 such rows and in
  none of 150 of 29; of single runs, where seeds change a row by half a point, in 20 % of 6 and in 64 %
  of 29. A row that did worse than one which can be told apart from the best is not named cheapest.
- **Pareto: yes.** No other strategy is as good in the main metric, peak memory, train time and
  trainable parameters, and better in one of these.
- **Best for a budget.** The best row within each budget at which the answer changes; small steps may
  be chance.
- **In italics** is what every strategy is held against: the untouched model with an untrained head
  (its predictions are not kept, so it is not tested), and classical predictors without a backbone.
- **Tuned.** The value was chosen on the validation split by as many `trials`; the test examples were
  predicted only after. Times and memory are those of the runs with the chosen value, not of the
  search.
- **Memory.** The peak in training. "Live tensors" counts the bytes of the tensors in use;
  "reserved" is what the GPU's allocator held for them; "resident" is all of the process, Python and
  libraries included.
- **Trainable** includes the task head, which every strategy trains; **share** is of all parameters,
  quantised ones counted as what they stand for.
- **Size on disk** is what must be shipped beside the backbone.
- **Time and memory compare only within one kind of device**, and time only as far as the devices
  named are alike. Train time is the optimizer's steps alone; in parentheses where the machine was of
  another speed than that of most rows, as its matrix products say: then it counts for no budget, and
  the row is not looked at for "Pareto".
- **Planned.** What each run's own plan foretold of its peak before it trained, knowing its largest
  batches; like the peak itself the largest of any seed. Below the table, run by run; negative: too
  little. `pewb plan`, which knows no lengths, takes batches at `max_tokens`.
- **Status.** A run that failed is a row too. "older numerics": pewb has computed differently since;
  run it again to compare. Where there are rows of today's numerics it is not held against them.
"""


class Leaderboard:
    """Every row that the records give, in groups that may be compared."""

    def __init__(self, records: Iterable[Record], outcomes: Outcomes | None = None) -> None:
        """Draw the rows from `records`, whose order does not matter, and test them by their runs' `outcomes`."""
        rows = rows_of(records)
        references = [row for row in rows if row.kind == "reference"]
        strategies = [row for row in rows if row.kind == "strategy"]
        taken = {row.task_conditions for row in strategies}
        alone = [row for row in references if row.task_conditions not in taken]
        self.groups = [
            Group(
                members,
                [row for row in references if row.task_conditions == members[0].task_conditions],
                outcomes or {},
            )
            for members in _grouped(strategies, outcomes or {})
        ] + [Group(members, [], outcomes or {}) for members in _grouped(alone, outcomes or {})]
        """Those of references without a strategy come last."""
        titles = Counter(group.title for group in self.groups)
        for group in self.groups:
            group.is_alone = titles[group.title] == 1

    @classmethod
    def from_results(cls, folder: str | Path = "results") -> Leaderboard:
        """Draw the leaderboard from the records in `folder` and the predictions beside them.

        Raises:
            InputError: a file there is no record, or was written by a newer pewb.
        """
        records = read_records(folder)
        return cls(records, read_outcomes(records, folder))

    def of_tasks(self, tasks: Sequence[str]) -> Leaderboard:
        """Return the tables of these tasks alone.

        Raises:
            InputError: there is none.
        """
        chosen = copy(self)
        chosen.groups = [group for group in self.groups if group.task in tasks]
        if not chosen.groups:
            known = sorted({group.task for group in self.groups})
            raise InputError(
                f"--task {', '.join(tasks)}: there is no table of it; there are some of: {', '.join(known)}"
            )
        return chosen

    @property
    def rows(self) -> list[Row]:
        """Every row that has runs, once, group by group, the best of each first."""
        rows = [row for group in self.groups for row in group.rows if row.runs]
        return list({tuple(row.runs): row for row in rows}.values())

    def to_json(self) -> dict[str, Any]:
        """Return the rows and the groups that compare them as JSON values."""
        return {
            "rows": [row.model_dump(mode="json") for row in self.rows],
            "groups": [group.to_json() for group in self.groups],
        }

    def to_markdown(self) -> str:
        """Return the page; the same records give the same bytes."""
        if not self.groups:
            return _START + _EMPTY
        return _START + "".join(group.to_markdown() for group in self.groups) + _NOTES

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw each table as an SVG picture into `folder`, and tables that differ in size alone as curves; return the paths.

        Raises:
            InputError: altair is not installed.
        """
        from pewb.leaderboard.plot import draw

        return draw(self.groups, Path(folder))

    def write(self, path: str | Path = "leaderboard.md") -> Path:
        """Write the page to `path` in one step, so that no reader sees half of it, and return the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        temporary.write_bytes(self.to_markdown().encode())
        temporary.replace(path)
        return path


def _grouped(rows: Sequence[Row], outcomes: Outcomes) -> list[list[Row]]:
    """Return rows that may be compared together, in the order of what they share; those of the most training examples first.

    Losses over other tokens are apart; a row without predictions stands with the most.
    """
    groups: dict[tuple[tuple[str, ...], str], list[Row]] = defaultdict(list)
    tokens = [tokens_of(row.counted, row.main_metric, outcomes) for row in rows]
    known = Counter((row.group_conditions, one) for row, one in zip(rows, tokens, strict=True) if one)
    for row, one in zip(rows, tokens, strict=True):
        others = [(count, other) for (place, other), count in known.items() if place == row.group_conditions]
        groups[row.group_conditions, one or (max(others)[1] if others else "")].append(row)
    return [
        groups[place] for place in sorted(groups, key=lambda place: (place[0][:-1], -int(place[0][-1] or 0), place[1]))
    ]
