"""What stands in the cells of a group's table, and how the table is laid out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pewb.leaderboard.row import Row
from pewb.leaderboard.verdicts import Standing
from pewb.record import Metric, Peak
from pewb.units import format_bytes, format_count, format_seconds

_LONGEST_REASON = 100
"""Characters of a failed run's reason that the table shows; the record has all of it."""


@dataclass(frozen=True)
class Line:
    """A row with what its group makes of it."""

    row: Row
    name: str
    """The shortest that no other row of the group has."""
    standing: Standing | None
    is_pareto: bool
    told: list[str]
    """Warnings that the group's header has told."""


@dataclass(frozen=True)
class Column:
    """One column: its name, its cell for a line, its side."""

    name: str
    cell: Callable[[Line], str]
    right: bool = True


def full_columns(lines: Sequence[Line]) -> list[Column]:
    """Return the columns of the page for the lines of a group."""
    rows = [line.row for line in lines]
    columns = [
        Column("strategy", lambda line: _label(line.row), right=False),
        Column("quantization", lambda line: line.row.quantization if line.row.kind == "strategy" else "–", right=False),
        Column("precision", lambda line: line.row.precision or "–", right=False),
        Column("trainable", lambda line: format_count(line.row.parameters.trainable if line.row.parameters else None)),
        Column("share", lambda line: _share(line.row.trainable_share)),
        _memory_column(rows, "peak "),
    ]
    if any(row.planned_memory_bytes is not None for row in rows):
        columns.append(Column("planned", lambda line: format_bytes(line.row.planned_memory_bytes)))
    if any(row.device == "cpu" and row.kind == "strategy" for row in rows):
        columns.append(Column("peak resident", lambda line: format_bytes(line.row.memory.train.peak_resident_bytes)))
    columns += [
        Column("train time", lambda line: _time(line.row)),
        Column("samples/s", lambda line: _rate(line.row.time.samples_per_second)),
        Column(_metric_name(rows), lambda line: _metric(line.row.main), right=False),
    ]
    if _is_tested(lines):
        columns.append(Column("against the best", _against_best, right=False))
    if any(line.is_pareto for line in lines):
        columns.append(Column("Pareto", lambda line: "yes" if line.is_pareto else "", right=False))
    columns.append(Column("size on disk", lambda line: format_bytes(line.row.shipped_bytes)))
    if any(row.num_trials for row in rows):
        columns.append(Column("trials", lambda line: format_count(line.row.num_trials)))
    return [
        *columns,
        Column("seeds", lambda line: _seeds(line.row)),
        Column("status", _status, right=False),
    ]


def compact_columns(lines: Sequence[Line], narrow: bool = False) -> list[Column]:
    """Return fewer columns, for a terminal; for a narrow one the interval is its larger half."""
    rows = [line.row for line in lines]
    seeds = [Column("seeds", lambda line: str(len(line.row.seeds)))] if any(len(row.seeds) > 1 for row in rows) else []
    marks = [Column("marks", _marks, right=False)] if any(_marks(line) for line in lines) else []
    return [
        Column("strategy", lambda line: line.name, right=False),
        Column("share", lambda line: _share(line.row.trainable_share)),
        _memory_column(rows, ""),
        Column("train time", lambda line: _time(line.row)),
        Column(_metric_name(rows), lambda line: (_brief_metric if narrow else _metric)(line.row.main), right=False),
        *marks,
        *seeds,
        Column("status", _status, right=False),
    ]


def aligned(lines: list[list[str]], columns: list[Column]) -> str:
    """Return a Markdown table whose columns line up; the last one, which is long, is not padded."""
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    widths[-1] = max(3, len(lines[0][-1]))
    ruler = [
        f"{'-' * (width - 1)}:" if column.right else "-" * width for width, column in zip(widths, columns, strict=True)
    ]
    padded = [
        [
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ]
        for line in lines
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in [padded[0], ruler, *padded[1:]])


def escaped(text: str) -> str:
    """Return text as one line that Markdown shows as it is, also inside a table."""
    return re.sub(r"([\\|<*`])", r"\\\1", " ".join(text.split()))


def number_range(values: Sequence[float]) -> str:
    """Return sorted numbers as "0.512", or as "0.498 to 0.512" where they differ."""
    low, high = f"{values[0]:.3f}", f"{values[-1]:.3f}"
    return low if low == high else f"{low} to {high}"


def _label(row: Row) -> str:
    """Return the row's label for a table that has a column for its storage."""
    details = ", ".join(part for part in (row.settings, row.distinction) if part)
    return f"{row.strategy}: {details}" if details else row.strategy


def _time(row: Row) -> str:
    """Return the time of the training, in parentheses where it does not compare with the table's."""
    text = format_seconds(row.time.train_seconds)
    return text if row.time_compares else f"({text})"


def _metric_name(rows: Sequence[Row]) -> str:
    return next((row.main_metric for row in rows if row.main_metric), "main metric")


def _is_tested(lines: Sequence[Line]) -> bool:
    return any(line.standing and line.standing.test for line in lines)


def _against_best(line: Line) -> str:
    """Return "best", "≈ −0.019, p 0.21" or "−0.104, p ≤ 0.001"."""
    standing = line.standing
    if standing is None:
        return "–"
    if standing.test is None or standing.corrected_p is None:
        return standing.place
    sign = "≈ " if standing.place == "alike" else ""
    return f"{sign}{signed(standing.test.difference)}, {p_value(standing.corrected_p)}"


def _marks(line: Line) -> str:
    """Return "best", "≈", "?" and "◆", as far as they hold; nothing where nothing is compared."""
    places = {"best": "best", "alike": "≈", "not tested": "" if line.row.kind == "untouched" else "?"}
    place = places.get(line.standing.place, "") if line.standing else ""
    return " ".join(mark for mark in (place, "◆" if line.is_pareto else "") if mark)


def signed(difference: float) -> str:
    """Return a difference with its sign: "+0.012", "−0.012", "0.000"."""
    text = f"{abs(difference):.3f}"
    return text if float(text) == 0 else f"{'−' if difference < 0 else '+'}{text}"


def p_value(value: float) -> str:
    """Return "p 0.21", "p 0.032" or "p ≤ 0.001"."""
    return "p ≤ 0.001" if value <= 0.001 else f"p {value:.3f}" if value < 0.1 else f"p {value:.2f}"


def _memory_column(rows: Sequence[Row], prefix: str) -> Column:
    if not any(row.memory.train.peak_reserved_bytes is not None for row in rows):
        return Column(f"{prefix}live tensors", lambda line: format_bytes(line.row.memory.train.peak_allocated_bytes))
    return Column(f"{prefix}reserved", lambda line: _reserved(line.row.memory.train))


def _reserved(peak: Peak) -> str:
    if peak.peak_reserved_bytes is None and peak.peak_allocated_bytes is not None:
        return f"{format_bytes(peak.peak_allocated_bytes)} live"
    return format_bytes(peak.peak_reserved_bytes)


def _share(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.3g} %"


def _rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _metric(metric: Metric | None) -> str:
    return "–" if metric is None else f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"


def _brief_metric(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    return f"{metric.value:.3f} ±{max(metric.high - metric.value, metric.value - metric.low):.3f}"


def _seeds(row: Row) -> str:
    seeds = ", ".join(map(str, row.seeds)) if len(row.seeds) <= 5 else f"{len(row.seeds)} seeds"
    return f"{seeds} ({row.num_outcomes} runs)" if row.num_outcomes > len(row.seeds) else seeds


def _status(line: Line) -> str:
    row = line.row
    if row.kind == "untouched":
        return "untrained head" if row.had_new_head else "success"
    flags = [_outcome(row)]
    if row.older_numerics:
        flags.append("older numerics")
    return "; ".join(flags + [warning for warning in row.warnings if warning not in line.told])


def seeds_told(row: Row) -> str:
    """Return how many of a row's seeds succeeded, and what became of the others: "2 of 3 seeds; 1 out_of_memory"."""
    others = "; ".join(f"{count} {status}" for status, count in row.outcomes.items() if status != "success")
    return f"{len(row.counted)} of {len(row.seeds)} seeds; {others}"


def _outcome(row: Row) -> str:
    """Return "success", "2 of 3 seeds; 1 out_of_memory" or "failed: the reason"."""
    if row.has_every_seed:
        return "success"
    text = row.status if len(row.seeds) == 1 else seeds_told(row)
    if row.counted or not row.reason:
        return text
    reason = " ".join(row.reason.split())
    return f"{text}: {reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + '…'}"
