"""Verdicts: which rows of a group can't be told apart from its best, which are Pareto-optimal, which fit a budget."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any, Literal

from pewb.evaluation.paired import SIGNIFICANCE, PairedTest, holm, paired_tests
from pewb.leaderboard.outcomes import Outcomes, Untested, of_runs, seed_noise
from pewb.leaderboard.row import Row
from pewb.tasks import greater_is_better
from pewb.units import format_bytes, format_count, format_seconds


@dataclass(frozen=True)
class Standing:
    """How a row stands against the best one of its group."""

    place: Literal["best", "alike", "behind", "not tested"]
    test: PairedTest | None = None
    """The row's main metric less the best one's."""
    corrected_p: float | None = None
    """Holm's, over every comparison with the best of the group."""
    reason: str | None = None
    """Why it is not tested."""

    def at_worst(self, metric: str | None) -> float | None:
        """Return the end of the difference's 95 % interval at which the row is furthest behind in `metric`; None for the best."""
        if self.test is None:
            return None
        return self.test.low if greater_is_better(metric) else self.test.high

    def to_json(self) -> dict[str, Any]:
        """Return the standing as JSON values."""
        return {"place": self.place, "corrected_p": self.corrected_p, "reason": self.reason} | (
            asdict(self.test) if self.test else {}
        )


@dataclass(frozen=True)
class Cost:
    """One of the prices of a strategy: its name, its figure for a row, and that figure as text."""

    name: str
    of: Callable[[Row], float | None]
    shown: Callable[[Any], str]


TRAIN_TIME = "train time"
COSTS = (
    Cost("memory", lambda row: row.peak_memory_bytes, format_bytes),
    Cost(TRAIN_TIME, lambda row: row.comparable_seconds, format_seconds),
    Cost("trainable parameters", lambda row: row.parameters.trainable if row.parameters else None, format_count),
)


def standings(rows: Sequence[Row], outcomes: Outcomes) -> list[Standing | None]:
    """Return how each of a group's rows, best first, stands against the best; None where there is nothing to compare."""
    found: list[Standing | None] = [None] * len(rows)
    if sum(row.status == "success" and row.main is not None for row in rows) < 2:
        return found
    best, *others = entrants(rows)
    for place, row in enumerate(rows):
        if _is_outdated(row, rows) and row.status == "success" and row.main:
            found[place] = Standing("not tested", reason="older numerics")
    for place, standing in zip(others, _against(rows[best], [rows[place] for place in others], outcomes), strict=True):
        found[place] = standing
    found[best] = Standing("best")
    return found


def _against(best: Row, others: Sequence[Row], outcomes: Outcomes) -> list[Standing]:
    first = of_runs(best.counted, outcomes) if best.counted else Untested("its predictions are not kept")
    if isinstance(first, Untested):
        return [Standing("not tested", reason=f"the best row can't be: {first.reason}") for _ in others]
    examples, predictor = first
    noise = seed_noise([row.counted for row in (best, *others) if row.is_random], outcomes)
    found = [Standing("not tested", reason="its predictions are not kept") for _ in others]
    testable = {}
    for place, row in enumerate(others):
        second = of_runs(row.counted, outcomes) if row.counted else Untested("its predictions are not kept")
        if isinstance(second, Untested):
            found[place] = replace(found[place], reason=second.reason)
        elif second[0] != examples:
            found[place] = replace(found[place], reason="its predictions are of other test examples")
        else:
            testable[place] = replace(second[1], noise=noise if row.is_random else None)
    top = replace(predictor, noise=noise if best.is_random else None)
    tests = [_turned(test) for test in paired_tests(top, list(testable.values()))]
    corrected = holm([test.p_value for test in tests])
    for place, test, p_value in zip(testable, tests, corrected, strict=True):
        found[place] = Standing("alike" if p_value >= SIGNIFICANCE else "behind", test, p_value)
    return found


def _turned(test: PairedTest) -> PairedTest:
    return replace(test, difference=-test.difference, low=-test.high, high=-test.low)


def entrants(rows: Sequence[Row]) -> list[int]:
    """Return the places of the rows with a result, but for those of older numerics where there are some of today's."""
    return [
        place for place, row in enumerate(rows) if row.status == "success" and row.main and not _is_outdated(row, rows)
    ]


def contenders(merits: Sequence[float], standings: Sequence[Standing | None]) -> list[bool]:
    """Return which rows may be taken for what they cost: those that did no worse than any row that is told apart from the best.

    A row whose seeds differ much can't be told apart from a best one that is far better: what is known of it is little, and
    rows that are known to be behind did better.

    Args:
        merits: how good each row is; more is better.
        standings: how each stands against the best.
    """
    places = [standing.place if standing else None for standing in standings]
    least = max((merit for merit, place in zip(merits, places, strict=True) if place == "behind"), default=-inf)
    return [place in ("best", "alike") and merit >= least for merit, place in zip(merits, places, strict=True)]


def _is_outdated(row: Row, rows: Sequence[Row]) -> bool:
    """Return whether pewb has computed differently since, and there are rows of today's numerics to compare."""
    return row.older_numerics and any(
        not other.older_numerics
        for other in rows
        if other.status == "success" and other.main and other.kind == "strategy"
    )


def pareto_optimal(rows: Sequence[Row]) -> list[bool]:
    """Return whether no other strategy is at least as good in the main metric and every cost, and better in one of them."""
    points = [None if _is_outdated(row, rows) else _point(row) for row in rows]
    return [point is not None and not any(other and _dominates(other, point) for other in points) for point in points]


def _point(row: Row) -> tuple[float, ...] | None:
    """Return what is to be small of a successful strategy, or None if some of it is not known."""
    if row.kind != "strategy" or row.status != "success" or row.main is None:
        return None
    figures = [cost.of(row) for cost in COSTS]
    known = [figure for figure in figures if figure is not None]
    return (-row.merit, *known) if len(known) == len(figures) else None


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(ours <= theirs for ours, theirs in zip(one, other, strict=True))


def staircase(rows: Sequence[Row], cost: Cost) -> list[Row]:
    """Return the best row within each budget at which the answer changes, cheapest first.

    A reference costs nothing, so that a strategy which is no better than one is not recommended at any price.
    """
    steps: list[Row] = []
    current = [row for row in rows if not _is_outdated(row, rows)]
    for row in sorted(_priced(current, cost), key=lambda row: (_price(row, cost), -row.merit, row.label)):
        if not steps or row.merit > steps[-1].merit:
            steps.append(row)
    return steps if any(row.kind == "strategy" for row in steps) else []


def cheapest(rows: Sequence[Row], cost: Cost) -> Row | None:
    """Return the strategy among `rows` with the least of one cost; of equals the best."""
    known = [row for row in _priced(rows, cost) if row.kind == "strategy"]
    return min(known, key=lambda row: (_price(row, cost), -row.merit, row.label), default=None)


def _priced(rows: Sequence[Row], cost: Cost) -> list[Row]:
    return [
        row
        for row in rows
        if row.status == "success" and row.main and (row.kind == "reference" or _is_priced_strategy(row, cost))
    ]


def _is_priced_strategy(row: Row, cost: Cost) -> bool:
    return row.kind == "strategy" and cost.of(row) is not None


def _price(row: Row, cost: Cost) -> float:
    return 0.0 if row.kind == "reference" else cost.of(row) or 0.0


def brief_names(rows: Sequence[Row]) -> list[str]:
    """Return for each row the shortest of its names that no other row has."""
    ladders = [
        (
            _joined(row.title, row.storage),
            _joined(row.strategy, row.storage, own),
            _joined(row.strategy, row.storage, own, tuned := "tuned" if row.num_trials else ""),
            _joined(row.strategy, row.storage, own, tuned, "older numerics" if row.older_numerics else ""),
            row.label,
            f"{row.label}, {row.precision}",
            ", ".join([row.label, *row.runs[:1]]),
        )
        for row, own in zip(rows, _own_words(rows), strict=True)
    ]
    counts = [Counter(names) for names in zip(*ladders, strict=True)] if ladders else []
    return [
        next((name for name, count in zip(names, counts, strict=True) if count[name] == 1), names[-1])
        for names in ladders
    ]


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _own_words(rows: Sequence[Row]) -> list[str]:
    """Return for each row what of its strategy's settings and its distinction the rows of that strategy do not all have."""
    words = [[*row.method.split(), *filter(None, re.split(r", (?=[\w. ]+=)", row.distinction))] for row in rows]
    shared: dict[tuple[str, str], set[str]] = {}
    for row, own in zip(rows, words, strict=True):
        kind = (row.strategy, row.storage)
        shared[kind] = shared.get(kind, set(own)) & set(own)
    return [
        " ".join(word for word in own if word not in shared[row.strategy, row.storage])
        for row, own in zip(rows, words, strict=True)
    ]
