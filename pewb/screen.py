"""The screen: progress on standard error, answers on standard output."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pewb.reporting import Reporter
from pewb.units import format_bytes, format_count, format_seconds

out = Console(soft_wrap=True, highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)


def print_entry(row: dict[str, Any]) -> None:
    """Print one entry of a list: its name and description, and its facts indented below."""
    facts = dict(row)
    title = Text.assemble((facts.pop("name"), "bold"), "  ", facts.pop("description"))
    out.print(title, soft_wrap=not out.is_terminal)
    text = "; ".join(f"{name.replace('_', ' ')} {_cell(value)}" for name, value in facts.items() if value != [])
    out.print(Padding(Text(text, style="dim"), (0, 0, 0, 4)), soft_wrap=False)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return format_count(value)
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(value) or "–" if isinstance(value, list) else str(value)


def print_runs(done: list[Any]) -> None:
    """Print what each (record, path) says of its run."""
    for record, path in done:
        good = record.status == "success"
        out.print()
        out.print(
            Text.assemble(
                (record.strategy, "bold"),
                f" on {record.backbone}, {record.task}, seed {record.seed}: ",
                (record.status, "green" if good else "red"),
            )
        )
        for name, text in _facts(record, path):
            style = "yellow" if name == "warning" else ""
            out.print(Text.assemble("  ", (f"{name:<21}", style), text))


def _facts(record: Any, path: Path) -> Iterator[tuple[str, str]]:
    """Yield what the screen says of a run: a name and a text for each line."""
    if record.reason:
        yield "reason", record.reason.splitlines()[0]
    for name, metric in record.metrics.items():
        untouched = record.baseline.get(name)
        before = f"   untouched model {untouched.value:.3f}" if untouched else ""
        yield name.replace("_", " "), f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]{before}"
    if record.parameters:
        counts = record.parameters
        trainable, total, head = map(format_count, (counts.trainable, counts.total, counts.head))
        yield "trainable", f"{trainable} of {total} ({counts.trainable / counts.total:.2%}), head {head}"
    if record.status == "success":
        peak, time_ = record.memory.train, record.time
        held = f"{format_bytes(peak.peak_reserved_bytes)} reserved, " if peak.peak_reserved_bytes is not None else ""
        live, resident = format_bytes(peak.peak_allocated_bytes), format_bytes(peak.peak_resident_bytes)
        yield "memory in training", f"{live} of live tensors, {held}{resident} resident"
        took, total = format_seconds(time_.train_seconds), format_seconds(time_.total_seconds)
        yield "time", f"{took} training at {time_.samples_per_second or 0:.0f} samples/s, {total} in all"
        yield "precision", record.precision
        yield "to ship", f"{format_bytes(record.shipped_bytes)} in {path.parent / record.model}"
    yield from (("notice", text) for text in record.notices)
    yield from (("warning", text) for text in record.warnings)
    if record.traceback and record.status == "failed":
        yield "traceback", "in the record"
    yield "record", str(path)


def print_leaderboard(board: Any) -> None:
    """Print a leaderboard as tables, what is to be known of a row below its table."""
    for group in board.groups:
        columns, rows = group.to_table()
        table = Table(title=Text(group.title), title_justify="left", box=None, header_style="bold", pad_edge=False)
        for name in columns:
            words = name in (columns[0], columns[-1])
            table.add_column(
                name, justify="left" if words else "right", overflow="fold", no_wrap=not words and out.width >= 100
            )
        details = []
        for row in rows:
            status, *detail = re.split(r"[:;] ", row[-1], maxsplit=1)
            table.add_row(*map(Text, [*row[:-1], status]))
            details += [f"{row[0]}: {text}" for text in detail]
        out.print(table, soft_wrap=False)
        for text in details:
            out.print(Padding(Text(text, style="dim"), (0, 0, 0, 2)), soft_wrap=False)
        out.print()


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on standard output."""
    can_all = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=not can_all) + "\n")


class _Bar:
    """Shows progress as a bar, on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, tuple[TaskID, float]] = {}
        """For each stage its bar, which is kept while another is shown, and how far it has come."""

    def notice(self, text: str) -> None:
        self._progress.console.print(text, markup=False)

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        for other, (task, before) in list(self._tasks.items()):
            if other == stage and done < before:  # it begins anew
                self._progress.remove_task(task)
                del self._tasks[stage]
            elif other != stage:
                self._progress.update(task, visible=False)
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, detail=detail), done
        task = self._tasks[stage][0]
        self._tasks[stage] = task, done
        self._progress.update(task, completed=done, total=total, detail=detail, visible=True)


class _Lines:
    """Shows progress as plain lines, at most one in ten seconds, in pipes and in CI."""

    def __init__(self) -> None:
        self._stage = ""
        self._shown = 0.0

    def notice(self, text: str) -> None:
        err.print(text, markup=False, soft_wrap=True)

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        now = time.monotonic()
        if stage == self._stage and now - self._shown < 10:
            return
        self._stage, self._shown = stage, now
        share = f" {done / total:.0%}" if total else ""
        err.print(f"{stage}{share}  {detail}".rstrip(), markup=False, soft_wrap=True)


@contextmanager
def reporting() -> Iterator[Reporter]:
    """Give a reporter for as long as the work takes: a bar on a terminal, plain lines elsewhere."""
    if not err.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=max(8, min(30, err.width - 70))),  # 80 columns hold the rest of a training's line
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        yield _Bar(progress)
