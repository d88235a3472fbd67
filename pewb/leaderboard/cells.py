"""What stands in the cells of a group's table, and how the table is laid out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pewb.leaderboard.rows import Row
from pewb.record import Metric, Peak
from pewb.units import format_bytes, format_count, format_seconds

_LONGEST_REASON = 100
"""Characters of a failed run's reason that the table shows; the record has all of it."""


@dataclass(frozen=True)
class Column:
    """One column: its name, its cell for a row (given the warnings that the header has told), its side."""

    name: str
    cell: Callable[[Row, list[str]], str]
    right: bool = True


def full_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of the page for a group of rows."""
    columns = [
        Column("strategy", lambda row, _: _label(row), right=False),
        Column("quantization", lambda row, _: row.quantization, right=False),
        Column("precision", lambda row, _: row.precision or "–", right=False),
        Column("trainable", lambda row, _: format_count(row.parameters.trainable if row.parameters else None)),
        Column("share", lambda row, _: _share(row.trainable_share)),
        _memory_column(rows, "peak "),
    ]
    if rows[0].device == "cpu":
        columns.append(Column("peak resident", lambda row, _: format_bytes(row.memory.train.peak_resident_bytes)))
    return [
        *columns,
        Column("train time", lambda row, _: format_seconds(row.time.train_seconds)),
        Column("samples/s", lambda row, _: _rate(row.time.samples_per_second)),
        Column(rows[0].main_metric or "main metric", lambda row, _: _metric(row.main), right=False),
        Column("size on disk", lambda row, _: format_bytes(row.shipped_bytes)),
        Column("seeds", lambda row, _: _seeds(row)),
        Column("status", _status, right=False),
    ]


def compact_columns(rows: Sequence[Row]) -> list[Column]:
    """Return fewer columns, for a terminal."""
    seeds = [Column("seeds", lambda row, _: _seeds(row))] if any(len(row.runs) > 1 for row in rows) else []
    return [
        Column("strategy", lambda row, _: _label(row, with_storage=True), right=False),
        Column("share", lambda row, _: _share(row.trainable_share)),
        _memory_column(rows, ""),
        Column("train time", lambda row, _: format_seconds(row.time.train_seconds)),
        Column(rows[0].main_metric or "main metric", lambda row, _: _metric(row.main), right=False),
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


def _label(row: Row, with_storage: bool = False) -> str:
    storage = row.quantization if with_storage and row.quantization != "none" else ""
    details = ", ".join(part for part in (storage, row.settings, row.distinction) if part)
    return f"{row.strategy}: {details}" if details else row.strategy


def _memory_column(rows: Sequence[Row], prefix: str) -> Column:
    if not any(row.memory.train.peak_reserved_bytes is not None for row in rows):
        return Column(f"{prefix}live tensors", lambda row, _: format_bytes(row.memory.train.peak_allocated_bytes))
    return Column(f"{prefix}reserved", lambda row, _: _reserved(row.memory.train))


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


def _seeds(row: Row) -> str:
    seeds = ", ".join(map(str, row.seeds)) if len(row.seeds) <= 5 else f"{len(row.seeds)} seeds"
    return seeds if len(row.runs) == len(row.seeds) else f"{seeds} ({len(row.runs)} runs)"


def _status(row: Row, told: list[str]) -> str:
    flags = [_outcome(row)]
    if row.older_numerics:
        flags.append("older numerics")
    return "; ".join(flags + [warning for warning in row.warnings if warning not in told])


def _outcome(row: Row) -> str:
    """Return "success", "2 of 3 seeds; 1 out_of_memory" or "failed: the reason"."""
    total, successes = len(row.seeds), row.outcomes.get("success", 0)
    if successes == total:
        return "success"
    others = "; ".join(f"{count} {status}" for status, count in row.outcomes.items() if status != "success")
    text = row.status if total == 1 else f"{successes} of {total} seeds; {others}"
    if successes or not row.reason:
        return text
    reason = " ".join(row.reason.split())
    return f"{text}: {reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + '…'}"
