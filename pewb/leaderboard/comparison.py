"""Two runs, or two rows of the leaderboard, against each other: is the difference real, and what does it cost?"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pewb.errors import InputError, nearest
from pewb.evaluation.paired import BOOTSTRAP_OF_EXAMPLES, MCNEMAR, PairedTest, Predictor, paired_test
from pewb.evaluation.parts import is_tested
from pewb.leaderboard.board import Leaderboard
from pewb.leaderboard.cells import p_value, signed
from pewb.leaderboard.group import Group
from pewb.leaderboard.outcomes import Untested, no_test, of_runs, read_outcomes, seed_noise
from pewb.leaderboard.row import Row
from pewb.leaderboard.rows import rows_of
from pewb.leaderboard.verdicts import COSTS, SIGNIFICANCE, Cost, brief_names
from pewb.record import Record, read_record, read_records
from pewb.tasks import greater_is_better
from pewb.units import format_bytes

_PRICES = (*COSTS, Cost("size on disk", lambda row: row.shipped_bytes, format_bytes))
_MOST_CANDIDATES = 12


@dataclass(frozen=True)
class Price:
    """One figure of both sides, as text, and the first over the second where both are known."""

    name: str
    one: str
    other: str
    ratio: float | None


@dataclass(frozen=True)
class Comparison:
    """The two sides, the paired test of the first less the second, and what each costs."""

    one: Row
    other: Row
    names: tuple[str, str]
    test: PairedTest
    prices: list[Price]
    notes: list[str]
    """What else differs between the two."""

    @property
    def verdict(self) -> str:
        """Whether the difference is real, in plain words."""
        one, other = self.names
        if self.is_of_single_runs:
            one, other = (
                f"this run of {name}" if row.is_random else name
                for name, row in zip(self.names, (self.one, self.other), strict=True)
            )
        if self.test.p_value >= SIGNIFICANCE:
            return f"{one} and {other} can't be told apart on these {self.one.test_examples:,} test examples"
        first_is_better = (self.test.difference > 0) == greater_is_better(self.one.main_metric)
        better, worse = (one, other) if first_is_better else (other, one)
        return f"{better} is better than {worse}"

    @property
    def is_of_single_runs(self) -> bool:
        """Whether these models were held against each other, for nothing is known of what other seeds bring."""
        return self.test.test in (MCNEMAR, BOOTSTRAP_OF_EXAMPLES) and (self.one.is_random or self.other.is_random)

    @property
    def evidence(self) -> str:
        """The difference with its interval, the p-value and the test."""
        test = self.test
        interval = f"[{signed(test.low)}, {signed(test.high)}]"
        return f"{signed(test.difference)} {interval}, {p_value(test.p_value)} ({test.test})"

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        sides = zip(self.names, (self.one, self.other), strict=True)
        return {
            "sides": [{"name": name} | row.model_dump(mode="json") for name, row in sides],
            "test": asdict(self.test),
            "verdict": self.verdict,
            "prices": [asdict(price) for price in self.prices],
            "notes": self.notes,
        }


def compare(one: str, other: str, results: Path) -> Comparison:
    """Compare two runs or rows.

    Args:
        one: a run's name, the path of its record, the name that a table shows, or the beginning of names or of a label;
            what fits several rows means those in the tables of the other, and of these the one that is called so.
        other: likewise.
        results: the folder of the records.

    Raises:
        InputError: one of them is not found, not unique or has no result, or they were not tested on the same examples.
    """
    records = read_records(results)
    rows = _Rows(records, results)
    sides = [_side(text, beside, records, rows) for text, beside in ((one, other), (other, one))]
    first, second = (side.row for side in sides)
    if first.counted == second.counted:
        raise InputError(f"'{one}' and '{other}' are the same runs; name two different ones")
    if (first.task, first.test_digest) != (second.task, second.test_digest):
        raise InputError(
            f"'{one}' and '{other}' were tested on different examples"
            f" ({_test_set(first)}; {_test_set(second)}); a paired test needs the same ones"
        )
    if first.main_metric != second.main_metric:
        raise InputError(
            f"'{one}' and '{other}' are judged by different metrics, {first.main_metric} and {second.main_metric}; run one of"
            " them with the task.metric of the other"
        )
    if not is_tested(first.main_metric):
        raise InputError(f"'{one}' can't be tested: {no_test(first.main_metric)}; pewb leaderboard ranks by it")
    (examples, predictor), (others, against) = (
        _predictor(text, side) for text, side in zip((one, other), sides, strict=True)
    )
    if examples != others:
        of_tokens = first.main_metric == "loss"
        raise InputError(
            f"'{one}' and '{other}' can't be compared: their predictions are of other"
            + (
                " tokens of the same texts, by another tokenizer or training.max_tokens, and the loss is for each token"
                if of_tokens
                else " examples"
            )
        )
    # Where one side's table tells of seeds and the other's does not, they are thought to matter as much there.
    noises = [predictor.noise or against.noise, against.noise or predictor.noise]
    predictor, against = (
        replace(each, noise=noise if side.row.is_random and side.peers else None)
        for each, noise, side in zip((predictor, against), noises, sides, strict=True)
    )
    test = paired_test(predictor, against)
    names = brief_names([first, second])
    prices = [_price(cost, first, second) for cost in _PRICES]
    comparison = Comparison(first, second, (names[0], names[1]), test, prices, _notes(first, second))
    if comparison.is_of_single_runs:
        comparison.notes.append("one run each: with other seeds it may be the other way round; run each with several")
    return comparison


@dataclass(frozen=True)
class _Side:
    """A row, the folder of its predictions, and the rows whose seeds tell of its own."""

    row: Row
    folder: Path
    peers: list[Row]
    """Those of its table, itself included; none where one run was asked for, and so no other seed matters."""


def _side(text: str, beside: str, records: list[Record], rows: _Rows) -> _Side:
    path = Path(text)
    if path.suffix == ".json" and path.is_file():
        side = _Side(rows_of([read_record(path)])[0], path.parent, [])
    elif exact := [record for record in records if record.run == text]:
        side = _Side(rows_of(exact)[0], rows.folder, [])
    else:
        row = rows.called(text, beside)
        side = _Side(row, rows.folder, [one for one in rows.all if one.group_conditions == row.group_conditions])
    row = side.row
    if row.status != "success":
        raise InputError(f"'{text}' has no result to compare: {row.status}{f', {row.reason}' if row.reason else ''}")
    return side


class _Rows:
    """The rows of a folder, found by what a user may call them."""

    def __init__(self, records: list[Record], folder: Path) -> None:
        self.all = rows_of(records)
        self.folder = folder
        self._shown: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for group in Leaderboard(records).groups:
            for row, name in zip(group.rows, group.names, strict=True):
                self._shown[tuple(row.runs)].add(name)

    def called(self, text: str, beside: str) -> Row:
        """Return the row that `text` names, where another is called `beside`."""
        found = self._fitting(text)
        others = self._fitting(beside)
        # Of several those beside which the other row stands; a reference stands beside every backbone.
        for place in (_tested_on, lambda row: row.task_conditions, lambda row: row.group_conditions):
            places = {place(row) for row in others}
            found = [row for row in found if place(row) in places] or found
        found = [row for row in found if self._is_shown_as(row, text)] or found
        if not found:
            names = [run for row in self.all for run in row.runs] + [row.strategy for row in self.all]
            raise InputError(
                f"no run in {self.folder}/ is named '{text}' or begins so{nearest(text, names)};"
                " pewb leaderboard shows all rows"
            )
        if len(found) > 1:
            shown = [f"  {row.label}, {row.task}{_size(row)}  ({_runs(row)})" for row in found[:_MOST_CANDIDATES]]
            more = [f"  and {len(found) - _MOST_CANDIDATES} more"] if len(found) > _MOST_CANDIDATES else []
            raise InputError(
                "\n".join([f"'{text}' fits {len(found)} rows; give more of the label or a run's name:", *shown, *more])
            )
        return found[0]

    def _fitting(self, text: str) -> list[Row]:
        return [row for row in self.all if row.label == text] or [
            row
            for row in self.all
            if row.label.startswith(text)
            or any(run.startswith(text) for run in row.runs)
            or self._is_shown_as(row, text)
        ]

    def _is_shown_as(self, row: Row, text: str) -> bool:
        return text in self._shown.get(tuple(row.runs), ())


def _tested_on(row: Row) -> tuple[str | None, ...]:
    return row.task, row.test_digest


def _size(row: Row) -> str:
    return "" if row.train_examples is None else f", {row.train_examples:,} training examples"


def _runs(row: Row) -> str:
    return row.runs[0] if len(row.runs) == 1 else f"{row.runs[0]} and {len(row.runs) - 1} more"


def _test_set(row: Row) -> str:
    count = f"{row.test_examples:,}" if row.test_examples is not None else "unknown"
    return f"{row.task}, {count} examples, digest {(row.test_digest or 'unknown')[:12]}"


def _predictor(text: str, side: _Side) -> tuple[str, Predictor]:
    """Return the digest of the examples as they were predicted, and what they add in their common order."""
    runs = [run for row in (side.row, *side.peers) for run in row.counted]
    outcomes = read_outcomes([read_record(side.folder / f"{run}.json") for run in dict.fromkeys(runs)], side.folder)
    found = of_runs(side.row.counted, outcomes)
    if isinstance(found, Untested):
        raise InputError(f"'{text}' can't be tested: {found.reason}; restore the file, or run it again")
    noise = seed_noise([peer.counted for peer in side.peers if peer.is_random], outcomes)
    return found[0], replace(found[1], noise=noise if side.row.is_random else None)


def _price(cost: Cost, one: Row, other: Row) -> Price:
    first, second = cost.of(one), cost.of(other)
    ratio = first / second if first is not None and second else None
    return Price(cost.name, cost.shown(first), cost.shown(second), ratio)


def _notes(one: Row, other: Row) -> list[str]:
    """Return what else differs, so that the difference is not put down to the strategies alone."""
    facts = {
        "backbones": (one.backbone, other.backbone),
        "numbers of training examples": (one.train_examples, other.train_examples),
        "devices": (", ".join(one.device_names), ", ".join(other.device_names)),
        "versions of the numerics": (one.numerics_version, other.numerics_version),
    }
    are_strategies = one.kind == other.kind == "strategy"
    notes = [
        f"other {name}: {first} and {second}" + (", so times and memory do not compare" if name == "devices" else "")
        for name, (first, second) in facts.items()
        if first != second and (are_strategies or name not in ("backbones", "devices"))
    ]
    if are_strategies and not Group([one, other], [], {}).times_compare:
        speeds = [f"{(row.time.matmul_peak_flops_per_second or 0) / 1e9:.0f}" for row in (one, other)]
        notes.append(
            f"machines of other speed: {' and '.join(speeds)} GFLOP/s in products of matrices, so times do not compare"
        )
    return notes
