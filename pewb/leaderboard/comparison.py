"""Two runs, or two rows of the leaderboard, against each other: is the difference real, and what does it cost?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pewb.errors import InputError
from pewb.evaluation.paired import BOOTSTRAP_OF_EXAMPLES, MCNEMAR, SIGNIFICANCE, PairedTest, Predictor, paired_test
from pewb.evaluation.parts import is_tested
from pewb.leaderboard.cells import p_value, signed
from pewb.leaderboard.group import Group
from pewb.leaderboard.outcomes import Untested, no_test, of_runs
from pewb.leaderboard.row import Row
from pewb.leaderboard.sides import Side, Tables
from pewb.leaderboard.speeds import gigaflops
from pewb.leaderboard.verdicts import COSTS, TRAIN_TIME, Cost, brief_names
from pewb.tasks import greater_is_better
from pewb.units import format_bytes

_PRICES = (*COSTS, Cost("size on disk", lambda row: row.shipped_bytes, format_bytes))


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
                f"this run of {name}" if row.is_random and len(row.counted) == 1 else name
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
        are_single = [len(row.counted) == 1 for row in (self.one, self.other) if row.is_random]
        return self.test.test in (MCNEMAR, BOOTSTRAP_OF_EXAMPLES) and any(are_single)

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
            "sides": [{"name": name} | row.model_dump(mode="json", exclude={"time_compares"}) for name, row in sides],
            "test": asdict(self.test),
            "verdict": self.verdict,
            "prices": [asdict(price) for price in self.prices],
            "notes": self.notes,
        }


def compare(
    one: str, other: str, results: Path, task: str | None = None, train_examples: int | None = None
) -> Comparison:
    """Compare two runs or rows.

    Args:
        one: a run's name, the path of its record, the name that a table shows, or the beginning of names or of a label;
            what fits several rows means those in the tables of the other, and of these the one that is called so.
        other: likewise.
        results: the folder of the records.
        task: rows are looked for in the tables of this task alone.
        train_examples: likewise, of so many training examples.

    Raises:
        InputError: one of them is not found, not unique or has no result, or they were not tested on the same examples.
    """
    sides = Tables(results, task, train_examples).pair(one, other)
    first, second = (side.row for side in sides)
    for text, row in ((one, first), (other, second)):
        if row.status != "success":
            raise InputError(
                f"'{text}' has no result to compare: {row.status}{f', {row.reason}' if row.reason else ''}"
            )
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
    noises = [side.noise for side in sides]
    predictor, against = (
        replace(each, noise=(noise or beside) if side.row.is_random and side.group else None)
        for each, side, noise, beside in zip((predictor, against), sides, noises, noises[::-1], strict=True)
    )
    test = paired_test(predictor, against)
    alone = brief_names([first, second])
    are_together = sides[0].group is not None and sides[0].group is sides[1].group
    names = (sides[0].name, sides[1].name) if are_together else (alone[0], alone[1])
    do_times_compare = "strategy" not in (first.kind, second.kind) or Group([first, second], [], {}).times_compare
    prices = [_price(cost, first, second, do_times_compare) for cost in _PRICES]
    comparison = Comparison(first, second, names, test, prices, _notes(first, second, do_times_compare))
    if comparison.is_of_single_runs:
        comparison.notes.append("single runs: with other seeds it may be the other way round; run several")
    if are_together and (note := _note_of_the_table(sides, names, test)):
        comparison.notes.append(note)
    return comparison


def _predictor(text: str, side: Side) -> tuple[str, Predictor]:
    """Return the digest of the examples as they were predicted, and what they add in their common order."""
    found = of_runs(side.row.counted, side.outcomes)
    if isinstance(found, Untested):
        raise InputError(f"'{text}' can't be tested: {found.reason}; restore the file, or run it again")
    return found


def _note_of_the_table(sides: Sequence[Side], names: Sequence[str], test: PairedTest) -> str | None:
    """Return what the table says of the two, where it says otherwise, for it tests all its rows against the best."""
    places = [side.standing.place if side.standing else None for side in sides]
    if test.p_value >= SIGNIFICANCE or sorted(map(str, places)) != ["alike", "best"]:
        return None
    name, standing = names[places.index("alike")], sides[places.index("alike")].standing
    assert standing is not None
    assert standing.corrected_p is not None
    corrected = p_value(standing.corrected_p)
    return (
        f"one comparison; among all that the table makes {name} can't be told apart from the best ({corrected}, Holm's)"
    )


def _test_set(row: Row) -> str:
    count = f"{row.test_examples:,}" if row.test_examples is not None else "unknown"
    return f"{row.task}, {count} examples, digest {(row.test_digest or 'unknown')[:12]}"


def _price(cost: Cost, one: Row, other: Row, do_times_compare: bool) -> Price:
    first, second = (cost.of(row.model_copy(update={"time_compares": True})) for row in (one, other))
    is_comparable = do_times_compare or cost.name != TRAIN_TIME
    ratio = first / second if is_comparable and first is not None and second else None
    return Price(cost.name, cost.shown(first), cost.shown(second), ratio)


def _notes(one: Row, other: Row, do_times_compare: bool) -> list[str]:
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
    if not do_times_compare:
        speeds = [gigaflops(row.machine_speeds) for row in (one, other)]
        notes.append(
            f"machines of other speed: {' and '.join(speeds)} GFLOP/s in products of matrices, so times do not compare"
        )
    return notes
