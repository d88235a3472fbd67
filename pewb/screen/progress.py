"""Progress on standard error: a bar or a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pewb.reporting import Reporter, Step
from pewb.screen.consoles import err
from pewb.units import format_seconds


class _Bar:
    """Shows progress on a terminal: a bar for the stage of a single run, a table where there are several things to do."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, tuple[TaskID, float]] = {}
        """For each stage its bar, which is kept while another is shown, and how far it has come."""
        self._standing: tuple[list[Step], float | None] | None = None

    def __rich__(self) -> RenderableType:
        """Return what is shown now."""
        if self._standing is None:
            return self._progress
        steps, seconds_left = self._standing
        return _standing_table(steps, seconds_left, max(3, self._progress.console.height - 6))

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

    def standing(self, steps: Sequence[Step], seconds_left: float | None) -> None:
        self._standing = list(steps), seconds_left


_SECONDS_BETWEEN_LINES = 10

_STYLES = {"done": "green", "kept": "green", "running": "bold", "waiting": "dim", "refused": "yellow"}


def _standing_table(steps: list[Step], seconds_left: float | None, height: int) -> Table:
    """Return a table of at most `height` lines: what runs, what is next, and what ended last."""
    running = [step for step in steps if step.state == "running"]
    waiting = [step for step in steps if step.state == "waiting"]
    room = max(1, height - len(running))
    next_ones = waiting[: room - min(len(steps) - len(running) - len(waiting), room * 2 // 3)]
    ended = [step for step in steps if step.state not in ("running", "waiting")]
    table = Table(box=None, show_header=False, title=Text(_standing_line(steps, seconds_left)), title_justify="left")
    table.expand = True
    shown = [*ended[-max(0, room - len(next_ones)) :], *running, *next_ones]
    states = [step.state.replace("_", " ") for step in shown]
    times = [format_seconds(step.seconds) if step.seconds else "" for step in shown]
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(no_wrap=True, width=max(map(len, states)))
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(no_wrap=True, width=max(map(len, times)), justify="right")
    for step, state, took in zip(shown, states, times, strict=True):
        table.add_row(Text(step.name), Text(state, _STYLES.get(step.state, "red")), Text(step.detail), took)
    return table


def _standing_line(steps: Sequence[Step], seconds_left: float | None) -> str:
    """Return how many are done, run and wait, and the time left, such as "3 of 7 done, 1 running, about 4 min left"."""
    counts = Counter(step.state for step in steps)
    ended = sum(count for state, count in counts.items() if state not in ("running", "waiting"))
    parts = [f"{ended} of {len(steps)} done"]
    parts += [
        f"{counts[state]} {state.replace('_', ' ')}" for state in counts if state not in ("done", "kept", "waiting")
    ]
    if seconds_left is not None and ended < len(steps):
        parts.append(f"about {format_seconds(seconds_left)} left")
    return ", ".join(parts)


class _Lines:
    """Shows progress as plain lines, in pipes and in CI: of each stage at most one in ten seconds, until something else is told."""

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}
        """When a line was last shown of each stage."""
        self._standing: list[tuple[str, str]] = []
        """Names of the steps, and how each stood when it was last told."""

    def notice(self, text: str) -> None:
        self._shown.clear()
        err.print(text, markup=False, soft_wrap=True)

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        now = time.monotonic()
        if now - self._shown.get(stage, -math.inf) < _SECONDS_BETWEEN_LINES:
            return
        self._shown[stage] = now
        share = f" {done / total:.0%}" if total else ""
        err.print(f"{stage}{share}  {detail}".rstrip(), markup=False, soft_wrap=True)

    def standing(self, steps: Sequence[Step], seconds_left: float | None) -> None:
        are_others = [step.name for step in steps] != [name for name, _ in self._standing]
        before = [("", "")] * len(steps) if are_others else self._standing
        self._standing = [(step.name, step.state) for step in steps]
        for step, (_, known) in zip(steps, before, strict=True):
            if step.state not in ("waiting", "running", known):
                took = f" after {format_seconds(step.seconds)}" if step.seconds else ""
                text = f"{step.name}: {step.state.replace('_', ' ')}{took}, {step.detail}".rstrip(", ")
                err.print(f"{text}  ({_standing_line(steps, seconds_left)})", markup=False, soft_wrap=True)


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
    bar = _Bar(Progress(*columns, console=err))
    with Live(bar, console=err, refresh_per_second=4, transient=True):
        yield bar
