"""The leaderboard: rows in groups that may be compared, as Markdown, JSON or a small table for a terminal."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pewb.leaderboard import cells
from pewb.leaderboard.rows import Row, rows_of
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
- **Memory.** The peak in training. "Live tensors" counts the bytes of the tensors in use;
  "reserved" is what the GPU's allocator held for them; "resident" is all of the process, Python and
  libraries included.
- **Trainable** includes the task head, which every strategy trains; **share** is of all parameters,
  quantised ones counted as what they stand for.
- **Size on disk** is what must be shipped beside the backbone.
- **Time and memory compare only within one kind of device**, and time only as far as the devices
  named are alike. Train time is the optimizer's steps alone.
- **Status.** A run that failed is a row too. "older numerics": pewb has computed differently since;
  run it again to compare.
"""


@dataclass(frozen=True)
class Group:
    """Rows that may be compared: the same backbone, task, test set, main metric and kind of device, best first."""

    rows: list[Row]

    @property
    def title(self) -> str:
        """The backbone, the task with the sizes of its splits, and the kind of device."""
        row = self.rows[0]
        examples = {one.test_examples for one in self.rows} - {None}
        sizes = [] if row.train_examples is None else [f"{row.train_examples:,} training"]
        sizes += [f"{examples.pop():,} test"] if len(examples) == 1 else []
        size = f" ({', '.join(sizes)} examples)" if sizes else ""
        return f"{row.backbone} · {row.task}{size} · {row.device or 'device unknown'}"

    @property
    def facts(self) -> list[str]:
        """Sentences that hold for the whole group: devices, baselines, digests, warnings that every row shares."""
        row = self.rows[0]
        facts = []
        if names := sorted({name for one in self.rows for name in one.device_names}):
            facts.append(f"Device: {', '.join(names)}.")
        if row.main_metric:
            baselines = sorted(
                one.baseline[row.main_metric].value for one in self.rows if row.main_metric in one.baseline
            )
            if baselines:
                facts.append(f"Untouched model: {cells.number_range(baselines)} {row.main_metric}.")
        if shares := sorted({one.majority_share for one in self.rows if one.majority_share is not None}):
            facts.append(f"Majority share of the test labels: {cells.number_range(shares)}.")
        digests = [("backbone", row.backbone_digest), ("test set", row.test_digest)]
        if known := [f"{name} {digest[:12]}" for name, digest in digests if digest]:
            facts.append(f"Digests: {', '.join(known)}.")
        return facts + [f"Every run here: {warning.rstrip('.')}." for warning in self._shared_warnings()]

    def to_table(self) -> tuple[list[str], list[list[str]]]:
        """Return columns and rows of a table that fits a terminal of 80 to 120 columns."""
        return self._table(cells.compact_columns(self.rows))

    def to_markdown(self) -> str:
        """Return the group as a section with a table, aligned for reading as plain text."""
        columns = cells.full_columns(self.rows)
        header, body = self._table(columns)
        table = cells.aligned([header, *([cells.escaped(text) for text in line] for line in body)], columns)
        facts = "".join(f"{cells.escaped(fact)}  \n" for fact in self.facts)
        return f"\n## {cells.escaped(self.title)}\n\n{facts}\n{table}".replace("\n\n\n", "\n\n")

    def _table(self, columns: list[cells.Column]) -> tuple[list[str], list[list[str]]]:
        shared = self._shared_warnings()
        lines = [[column.cell(row, shared) for column in columns] for row in self.rows]
        return [column.name for column in columns], lines

    def _shared_warnings(self) -> list[str]:
        """Return the warnings of every row with a success, if there are at least two such rows."""
        successes = [row for row in self.rows if row.status == "success"]
        if len(successes) < 2:
            return []
        return [text for text in successes[0].warnings if all(text in row.warnings for row in successes)]


class Leaderboard:
    """Every row that the records give, in groups that may be compared."""

    def __init__(self, records: Iterable[Record]) -> None:
        """Draw the rows from `records`, whose order does not matter."""
        groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in rows_of(records):
            place = (
                row.backbone,
                row.task,
                row.device,
                row.test_digest,
                row.backbone_digest,
                row.main_metric,
                row.train_examples,
            )
            groups[tuple(str(part or "") for part in place)].append(row)
        self.groups = [Group(sorted(groups[place], key=_rank)) for place in sorted(groups)]

    @classmethod
    def from_results(cls, folder: str | Path = "results") -> Leaderboard:
        """Draw the leaderboard from the records in `folder`.

        Raises:
            InputError: a file there is no record, or was written by a newer pewb.
        """
        return cls(read_records(folder))

    @property
    def rows(self) -> list[Row]:
        """Every row, group by group, the best of each first."""
        return [row for group in self.groups for row in group.rows]

    def to_json(self) -> dict[str, Any]:
        """Return the rows as JSON values."""
        return {"rows": [row.model_dump(mode="json") for row in self.rows]}

    def to_markdown(self) -> str:
        """Return the page; the same records give the same bytes."""
        if not self.groups:
            return _START + _EMPTY
        return _START + "".join(group.to_markdown() for group in self.groups) + _NOTES

    def write(self, path: str | Path = "leaderboard.md") -> Path:
        """Write the page to `path` in one step, so that no reader sees half of it, and return the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        temporary.write_bytes(self.to_markdown().encode())
        temporary.replace(path)
        return path


def _rank(row: Row) -> tuple[Any, ...]:
    """Return what rows of a group are sorted by: success first, then the main metric, then what they are."""
    value = row.main.value if row.main else float("-inf")
    return row.status != "success", -value, row.strategy, row.settings, row.quantization, row.precision or "", row.runs
