"""A group of rows that may be compared: its table, and what follows from it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from statistics import median
from typing import Any

from pewb.leaderboard import cells
from pewb.leaderboard.outcomes import Outcomes, tokens_of
from pewb.leaderboard.row import Row
from pewb.leaderboard.rows import untouched_row
from pewb.leaderboard.speeds import compares, gigaflops, speeds_of
from pewb.leaderboard.verdicts import (
    COSTS,
    Cost,
    Standing,
    brief_names,
    cheapest,
    contenders,
    pareto_optimal,
    staircase,
    standings,
)


class Group:
    """Rows that may be compared: the same backbone, task, test set, main metric and kind of device, best first.

    Among them are the classical references on the same task and test set, and the untouched model.
    """

    def __init__(self, strategies: Sequence[Row], references: Sequence[Row], outcomes: Outcomes) -> None:
        """Rank the rows and test them against the best.

        Args:
            strategies: one row or more.
            references: may be empty.
            outcomes: right or wrong for each test example, by run.
        """
        untouched = untouched_row(strategies)
        speeds = speeds_of(strategies)
        timed = [row.model_copy(update={"time_compares": compares(row, speeds)}) for row in strategies]
        self.rows = sorted([*timed, *references, *([untouched] if untouched else [])], key=_rank)
        self._outcomes = outcomes
        self._place = strategies[0]
        self._tokens = tokens_of(self._place.counted, self._place.main_metric, outcomes) or ""
        self.is_alone = True
        """Whether no other table has its title: losses over other tokens are in tables of their own."""

    @cached_property
    def standings(self) -> list[Standing | None]:
        """How each row stands against the best."""
        return standings(self.rows, self._outcomes)

    @cached_property
    def pareto(self) -> list[bool]:
        """Whether each row is Pareto-optimal."""
        return pareto_optimal(self.rows)

    @property
    def task(self) -> str:
        """The task's name."""
        return self._place.task

    @property
    def main_metric(self) -> str:
        """What the rows are ranked by."""
        return next((row.main_metric for row in self.rows if row.main_metric), "main metric")

    @property
    def names(self) -> list[str]:
        """For each row the shortest of its names that no other has."""
        return [self._name(row) for row in self.rows]

    @property
    def times_compare(self) -> bool:
        """Whether all rows were timed on equally fast machines."""
        return all(row.time_compares for row in self.rows)

    @property
    def title(self) -> str:
        """The backbone, the task with the sizes of its splits, and the kind of device."""
        row = self._place
        examples = {one.test_examples for one in self.rows} - {None}
        sizes = [] if row.train_examples is None else [f"{row.train_examples:,} training"]
        sizes += [f"{examples.pop():,} test"] if len(examples) == 1 else []
        size = f" ({', '.join(sizes)} examples)" if sizes else ""
        return self._titled(size) + ("" if self.is_alone else f" · loss over the tokens {self._tokens[:8]}")

    @property
    def title_but_size(self) -> str:
        """The title that tables of other numbers of training examples share."""
        return self._titled("")

    def _titled(self, size: str) -> str:
        row = self._place
        if row.kind == "reference":
            return f"{row.task}{size} · references alone"
        return f"{row.backbone} · {row.task}{size} · {row.device or 'device unknown'}"

    @property
    def conditions_but_size(self) -> tuple[str, ...]:
        """What the rows share, but for the number of training examples."""
        return *self._place.group_conditions[:-1], self._tokens

    @property
    def file_name(self) -> str:
        """What a picture of the table is called, without its ending; two tables may have the same."""
        row = self._place
        return _file_name(row.backbone, row.task, row.train_examples, row.device)

    @property
    def file_name_but_size(self) -> str:
        """Likewise, of a picture of several such tables."""
        row = self._place
        return _file_name(row.backbone, row.task, "sizes", row.device)

    @property
    def facts(self) -> list[str]:
        """Sentences that hold for the whole group: devices, majority, digests, warnings that every row shares."""
        facts = []
        if names := sorted({name for one in self.rows if one.kind == "strategy" for name in one.device_names}):
            facts.append(f"Device: {', '.join(names)}.")
        if others := [name for name, row in zip(self.names, self.rows, strict=True) if not row.time_compares]:
            peaks = [speed for one in self.rows if not one.time_compares for speed in one.machine_speeds]
            rest = [speed for one in self.rows if one.time_compares for speed in one.machine_speeds]
            facts.append(
                f"Times in parentheses ({', '.join(others)}) are of other machines: products of matrices ran at"
                f" {gigaflops(peaks)} GFLOP/s there, at {gigaflops(rest)} for the rest."
            )
        if shares := sorted({one.majority_share for one in self.rows if one.majority_share is not None}):
            facts.append(f"The most frequent class has this share of the test labels: {cells.number_range(shares)}.")
        digests = [("backbone", self._place.backbone_digest), ("test set", self._place.test_digest)]
        if known := [f"{name} {digest[:12]}" for name, digest in digests if digest]:
            facts.append(f"Digests: {', '.join(known)}.")
        return facts + [f"Every run here: {warning.rstrip('.')}." for warning in self._shared_warnings]

    @cached_property
    def conclusions(self) -> list[tuple[str, str]]:
        """What follows from the table, each with a few words that head it."""
        told = [("Not tested against the best", text) for text in self._untested()]
        if text := self._alike():
            told.insert(0, ("Not told apart from the best" if self._placed("alike") else "Against the best", text))
        budgets = [(f"Best for a budget of {cost.name}", self._budget(cost)) for cost in COSTS]
        plans = [("Planned memory", text)] if (text := self._plans()) else []
        return told + [(head, text) for head, text in budgets if text] + plans

    def to_json(self) -> dict[str, Any]:
        """Return the ranking and what follows from it as JSON values; the rows are named by their runs."""
        entries = [
            {
                "name": self._names[row.label, tuple(row.runs)],
                "kind": row.kind,
                "runs": row.runs,
                "value": row.main.model_dump(mode="json") if row.main else None,
                "against_best": standing.to_json() if standing else None,
                "is_pareto_optimal": is_pareto,
            }
            for row, standing, is_pareto in zip(self.rows, self.standings, self.pareto, strict=True)
        ]
        return {"title": self.title, "facts": self.facts, "ranking": entries, "conclusions": dict(self._merged())}

    def to_table(self, narrow: bool = False) -> tuple[list[str], list[list[str]]]:
        """Return columns and rows of a table that fits a terminal of 100 columns, or of 80 without its last column."""
        columns = cells.compact_columns(self._lines, narrow)
        return [column.name for column in columns], self._cells(columns)

    def to_markdown(self) -> str:
        """Return the group as a section with a table, aligned for reading as plain text."""
        columns = cells.full_columns(self._lines)
        body = [[cells.escaped(text) for text in line] for line in self._cells(columns)]
        for row, line in zip(self.rows, body, strict=True):
            if row.kind != "strategy":
                line[0] = f"*{line[0]}*"
        table = cells.aligned([[column.name for column in columns], *body], columns)
        facts = "".join(f"{cells.escaped(fact)}  \n" for fact in self.facts)
        conclusions = "".join(f"- **{head}:** {cells.escaped(text)}\n" for head, text in self.conclusions)
        page = f"\n## {cells.escaped(self.title)}\n\n{facts}\n{table}\n{conclusions}"
        return page.replace("\n\n\n", "\n\n").rstrip("\n") + "\n"

    @cached_property
    def _names(self) -> dict[tuple[str, tuple[str, ...]], str]:
        keys = [(row.label, tuple(row.runs)) for row in self.rows]
        return dict(zip(keys, brief_names(self.rows), strict=True))

    def _name(self, row: Row) -> str:
        return self._names[row.label, tuple(row.runs)]

    @cached_property
    def _lines(self) -> list[cells.Line]:
        return [
            cells.Line(row, self._name(row), standing, is_pareto, self._shared_warnings)
            for row, standing, is_pareto in zip(self.rows, self.standings, self.pareto, strict=True)
        ]

    def _cells(self, columns: list[cells.Column]) -> list[list[str]]:
        return [[column.cell(line) for column in columns] for line in self._lines]

    def _placed(self, *places: str) -> list[Row]:
        return [
            row
            for row, standing in zip(self.rows, self.standings, strict=True)
            if standing and standing.place in places
        ]

    def _alike(self) -> str:
        """Return which rows can't be told apart from the best, and the cheapest of them."""
        if not any(standing and standing.test for standing in self.standings):
            return ""
        best, alike = self._placed("best")[0], self._placed("alike")
        if not alike:
            return f"every row that was tested can be told apart from {self._name(best)}, the best."
        text = f"{_listed([self._name(row) for row in alike])} can't be told apart from {self._name(best)}, the best."
        merits = [row.merit for row in self.rows]
        able = [row for row, is_able in zip(self.rows, contenders(merits, self.standings), strict=True) if is_able]
        if doubtful := [self._name(row) for row in alike if row not in able]:
            [behind, *_] = self._placed("behind")
            text += f" {_listed(doubtful)} did worse than {self._name(behind)}, which can."
        if able == [best]:
            return text
        picks: dict[str, list[str]] = defaultdict(list)
        for cost in COSTS:
            if row := cheapest(able, cost):
                picks[self._name(row) + self._at_worst(row)].append(f"{cost.name} ({cost.shown(cost.of(row))})")
        told = [f"{name} in {_listed(prices)}" for name, prices in picks.items()]
        return f"{text} The cheapest of {'the rest' if doubtful else 'these'}: {'; '.join(told)}." if told else text

    def _at_worst(self, row: Row) -> str:
        standing = self.standings[self.rows.index(row)]
        worst = standing.at_worst(row.main_metric) if standing else None
        return "" if worst is None else f" (at worst {cells.signed(worst)})"

    def _budget(self, cost: Cost) -> str:
        steps = [
            f"{'without a backbone' if row.kind == 'reference' else f'from {cost.shown(cost.of(row))}'}:"
            f" {self._name(row)} {row.main.value if row.main else 0:.3f}"
            for row in staircase(self.rows, cost)
        ]
        return f"{'; '.join(steps)}." if steps else ""

    def _plans(self) -> str:
        """Return how far the plans of memory in training were from what was measured, run by run."""
        rows = [row for row in self.rows if row.status == "success" and not row.older_numerics]
        errors = sorted(error for row in rows for error in row.plan_errors)
        if not errors:
            return ""
        if len(errors) == 1:
            return f"{_percent(errors[0])} beside what was measured (one run)."
        spread = f"{_percent(errors[0])} to {_percent(errors[-1])}, in the median {_percent(median(errors))}"
        return f"{spread} beside what was measured ({len(errors)} runs)."

    def _untested(self) -> list[str]:
        """Return the reasons for which rows are not tested, each with its rows; the untouched model's is no news."""
        names: dict[str, list[str]] = defaultdict(list)
        for row, standing in zip(self.rows, self.standings, strict=True):
            if standing and standing.reason and row.kind != "untouched":
                names[standing.reason].append(self._name(row))
        return [f"{', '.join(rows)} ({reason})." for reason, rows in names.items()]

    def _merged(self) -> dict[str, str]:
        merged: dict[str, list[str]] = defaultdict(list)
        for head, text in self.conclusions:
            merged[head].append(text)
        return {head: " ".join(texts) for head, texts in merged.items()}

    @cached_property
    def _shared_warnings(self) -> list[str]:
        """Return the warnings of every strategy with a success, if there are at least two such rows."""
        successes = [row for row in self.rows if row.status == "success" and row.kind == "strategy"]
        if len(successes) < 2:
            return []
        return [text for text in successes[0].warnings if all(text in row.warnings for row in successes)]


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


_LONGEST_FILE_NAME = 150


def _file_name(*parts: object) -> str:
    name = "-".join(str(part) for part in parts if part)
    return re.sub(r"[^A-Za-z0-9._]+", "-", name)[-_LONGEST_FILE_NAME:].strip("-.") or "table"


def _percent(share: float) -> str:
    text = f"{abs(100 * share):.1f}"
    return f"{'' if float(text) == 0 else '−' if share < 0 else '+'}{text} %"


def _rank(row: Row) -> tuple[Any, ...]:
    """Return what rows of a group are sorted by: success first, then the main metric, then what they are."""
    return row.status != "success", -row.merit, row.kind, row.label, row.precision or "", row.counted, row.runs
