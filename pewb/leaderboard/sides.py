"""What a user calls a run or a row, found among the tables of the leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

from pewb.errors import InputError, nearest
from pewb.evaluation.paired import SeedNoise
from pewb.leaderboard.board import Leaderboard
from pewb.leaderboard.group import Group
from pewb.leaderboard.outcomes import Outcomes, read_outcomes, seed_noise
from pewb.leaderboard.row import Row
from pewb.leaderboard.rows import rows_of
from pewb.leaderboard.verdicts import Standing, entrants
from pewb.record import read_record, read_records

_MOST_CANDIDATES = 12


@dataclass(frozen=True)
class Side:
    """A row, or a run alone, and where it stands."""

    row: Row
    outcomes: Outcomes
    group: Group | None = None
    """Its table; None where one run was asked for, and so no other seed matters."""

    @property
    def noise(self) -> SeedNoise | None:
        """How much seeds matter in its table."""
        rows = [self.group.rows[place] for place in entrants(self.group.rows)] if self.group else []
        return seed_noise([row.counted for row in rows if row.is_random], self.outcomes)

    @property
    def _place(self) -> int:
        assert self.group is not None
        return self.group.rows.index(self.row)

    @property
    def name(self) -> str:
        """What its table calls it."""
        assert self.group is not None
        return self.group.names[self._place]

    @property
    def standing(self) -> Standing | None:
        """How it stands in its table."""
        return self.group.standings[self._place] if self.group else None


class Tables:
    """The tables that the records of a folder give, in which rows are found by what a user may call them."""

    def __init__(self, folder: Path, task: str | None = None, train_examples: int | None = None) -> None:
        """Read the records and their predictions.

        Args:
            folder: of the results.
            task: rows are looked for in the tables of this task alone.
            train_examples: likewise, of so many training examples.
        """
        self._folder = folder
        self._records = {record.run: record for record in read_records(folder)}
        self._outcomes = read_outcomes(self._records.values(), folder)
        self._all = [
            Side(row, self._outcomes, group)
            for group in Leaderboard(self._records.values(), self._outcomes).groups
            for row in group.rows
            if row.runs and task in (None, row.task) and train_examples in (None, row.train_examples)
        ]

    def pair(self, one: str, other: str) -> tuple[Side, Side]:
        """Return what `one` and `other` name, in one table if they are; see `pewb.leaderboard.compare`.

        Raises:
            InputError: one of them is not found, or not unique.
        """
        sides = [self._side(text, beside) for text, beside in ((one, other), (other, one))]
        first, second = (
            next((one for one in found if any(one.group is other.group for other in beside)), found[0])
            for found, beside in (sides, sides[::-1])
        )
        return first, second

    def _side(self, text: str, beside: str) -> list[Side]:
        """Return what `text` names, where another is called `beside`: once for each table in which it stands."""
        path = Path(text)
        if path.suffix == ".json" and path.is_file():
            record = read_record(path)
            return [Side(rows_of([record])[0], read_outcomes([record], path.parent))]
        if text in self._records:
            return [Side(rows_of([self._records[text]])[0], self._outcomes)]
        found, others = self._fitting(text), self._fitting(beside)
        # Of several those beside which the other row stands; a reference stands beside every backbone.
        keys: list[Callable[[Side], Hashable]] = [
            lambda side: (side.row.task, side.row.test_digest),
            lambda side: side.row.task_conditions,
            lambda side: id(side.group),
        ]
        for key in keys:
            places = {key(side) for side in others}
            found = [side for side in found if key(side) in places] or found
        found = [side for side in found if side.name == text] or found
        rows = list({tuple(side.row.runs): side.row for side in found}.values())
        if not found:
            names = [*self._records, *(side.name for side in self._all)]
            raise InputError(
                f"no run in {self._folder}/ is named '{text}' or begins so{nearest(text, names)};"
                " pewb leaderboard shows all rows"
            )
        if len(rows) > 1:
            shown = [f"  {row.label}, {row.task}{_size(row)}  ({_runs(row)})" for row in rows[:_MOST_CANDIDATES]]
            more = [f"  and {len(rows) - _MOST_CANDIDATES} more"] if len(rows) > _MOST_CANDIDATES else []
            raise InputError("\n".join([f"'{text}' fits {len(rows)} rows; {_way_out(rows)}:", *shown, *more]))
        return found

    def _fitting(self, text: str) -> list[Side]:
        return [side for side in self._all if side.row.label == text] or [
            side
            for side in self._all
            if side.row.label.startswith(text)
            or any(run.startswith(text) for run in side.row.runs)
            or side.name == text
        ]


def _way_out(rows: list[Row]) -> str:
    ways = []
    if len({row.task for row in rows}) > 1:
        ways.append("--task")
    if len({(row.task, row.train_examples) for row in rows}) > len({row.task for row in rows}):
        ways.append("--train-examples")
    if len({row.group_conditions for row in rows}) < len(rows):
        ways.append("more of the label")
    return f"give {' and '.join(ways)}" if ways else "name a run"


def _size(row: Row) -> str:
    return "" if row.train_examples is None else f", {row.train_examples:,} training examples"


def _runs(row: Row) -> str:
    return row.runs[0] if len(row.runs) == 1 else f"{row.runs[0]} and {len(row.runs) - 1} more"
