"""The screen: progress on standard error, answers on standard output."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pewb.reporting import Reporter, Step
from pewb.units import format_bytes, format_count, format_seconds

out = Console(soft_wrap=True, highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)


def print_entry(row: dict[str, Any]) -> None:
    """Print one entry of a list: its name and description, and its facts indented below."""
    facts = dict(row)
    title = Text.assemble((facts.pop("name"), "bold"), "  ", facts.pop("description"))
    out.print(title, soft_wrap=not out.is_terminal)
    text = "; ".join(_fact(name, value) for name, value in facts.items() if value != [])
    out.print(Padding(Text(text, style="dim"), (0, 0, 0, 4)), soft_wrap=False)


def _fact(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return f"{name.removesuffix('_bytes').replace('_', ' ')} {format_bytes(value)}"
    return f"{name.replace('_', ' ')} {_cell(value)}"


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


def print_matrix(combinations: list[Any], device: str) -> None:
    """Print which combinations of method, architecture and quantization can be, with numbered reasons below."""
    numbers: dict[str, int] = {}
    rows: dict[str, dict[str, list[str]]] = {}
    for one in combinations:
        word = "yes" if one.refusal is None else str(numbers.setdefault(one.refusal, len(numbers) + 1))
        rows.setdefault(str(one.method), {}).setdefault(one.architecture, []).append(word)
    storages = list(dict.fromkeys(one.quantization for one in combinations))
    families = list(dict.fromkeys(one.architecture for one in combinations))
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", min_width=max(len(word) for method in rows for word in method.split()))
    for name in families:
        table.add_column(name, no_wrap=True)
    for method, cells in rows.items():
        table.add_row(method, *(_one_or_each(cells[family]) for family in families))
    out.print(table, soft_wrap=False)
    refused = sum(one.refusal is not None for one in combinations)
    out.print(
        f"\nA cell is for {', '.join(storages)}: one answer where they agree, else one for each. A number is a reason below."
    )
    working = len(combinations) - refused
    out.print(f"{len(combinations)} combinations on this device ({device}): {working} work, {refused} are refused:")
    for reason, number in numbers.items():
        out.print(f"  ({number}) {reason}", markup=False)


def _one_or_each(words: list[str]) -> str:
    return words[0] if len(set(words)) == 1 else "/".join(words)


def print_cells(cells: Sequence[Any]) -> None:
    """Print one line for each row of a recipe: what would be run, or why it can't be."""
    from pewb.recipe import distinctions

    for cell, distinction in zip(cells, distinctions([cell.recipe for cell in cells]), strict=True):
        recipe = cell.recipe
        seeds = f"seed{'s' * (len(recipe.seeds) > 1)} {', '.join(map(str, recipe.seeds))}"
        rate = f"learning rate {recipe.training.learning_rate:g}"
        tuned = f"{recipe.tune.trials} trials around " if recipe.tune else ""
        text = f"  {recipe.strategy.kind} {recipe.strategy.describe()}, quantization {recipe.quantization}, {tuned}{rate}, {seeds}"
        text += f", {distinction}" if distinction else ""
        out.print(Text.assemble(text, (f"  refused: {cell.refusal}" if cell.refusal else "", "yellow")))


def _planned(record: Any) -> str:
    """Return what the plan had said of a run's training, if there was one."""
    if record.memory_predicted is None:
        return ""
    train = record.memory_predicted.train
    return f"; planned {format_bytes(train.peak_reserved_bytes or train.peak_allocated_bytes)}"


def print_plans(plans: Sequence[Any], explain: bool) -> None:
    """Print a line for each plan, or all that is known where there is but one."""
    target = plans[0].target
    out.print(f"[bold]{escape(target.name)}[/], {format_bytes(target.memory_bytes)} for a training")
    if len(plans) == 1 and plans[0].estimate:
        for name, text in plan_facts(plans[0]):
            out.print(Text.assemble((f"  {name:<18}", "dim"), text))
    else:
        _print_plan_table(plans)
    notices = dict.fromkeys(notice for one in plans for notice in [*one.notices, *_told(one.estimate)])
    for notice in notices:
        out.print(f"  {notice}", markup=False)
    if explain:
        for line in dict.fromkeys(line for one in plans for line in one.assumptions):
            out.print(f"  assumed: {line}", markup=False)


def _told(estimate: Any) -> list[str]:
    return [*estimate.notices, *(f"low confidence: {doubt}" for doubt in estimate.doubts)] if estimate else []


def _print_plan_table(plans: Sequence[Any]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    several = len({one.backbone for one in plans}) > 1
    for name in (["backbone"] if several else []) + ["strategy", "quantization"]:
        table.add_column(name)
    for name in ("trainable", "batch", "peak", "evaluation", "fits"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in plans:
        recipe = one.recipe
        cells = ([one.backbone] if several else []) + [
            f"{recipe.strategy.kind} {recipe.strategy.describe()}".strip(),
            str(recipe.quantization),
        ]
        found = one.estimate
        if found is None:
            table.add_row(*cells, "", "", "", "", f"refused: {one.refusal}")
            continue
        table.add_row(
            *cells,
            format_count(found.parameters.trainable),
            f"{found.micro_batch_size} of {recipe.training.batch_size}",
            format_bytes(found.train.needed_bytes),
            format_bytes(found.evaluation.needed_bytes),
            Text(found.fits or "–", style=_FIT_STYLES.get(found.fits or "", "")),
        )
    out.print(table, soft_wrap=False)


_FEW_FOREIGN = 4


def print_choice(chosen: Any) -> None:
    """Print what fits and what was measured of it, the choice and why; of several memory sizes, the ladder."""
    top = chosen.ranking
    if len(chosen.rankings) > 1:
        _print_ladder(chosen.rankings)
    else:
        out.print(f"[bold]{escape(top.title)}[/], {format_bytes(top.limit_bytes)} for a training")
        _print_ranking(top)
        out.print()
        head = "take" if top.choice else "no choice"
        out.print(Text.assemble((f"{head}  ", "bold"), top.reason), soft_wrap=False)
    _print_foreign(chosen)
    for notice in chosen.notices:
        out.print(f"  {notice}", markup=False)


def _print_foreign(chosen: Any) -> None:
    """Print what was measured elsewhere: where rows have no evidence of their own the first few, else how many."""
    elsewhere = chosen.elsewhere
    shown = elsewhere[:_FEW_FOREIGN] if any(not one.candidate.support for one in chosen.ranking.entries) else []
    if elsewhere:
        out.print(Text("\nMeasured elsewhere, and not ranked:" if shown else "", style="dim"))
    for one in shown:
        value = f"{one.row.main.value:.3f}" if one.row.main else "–"
        because = [
            text.partition(":")[0] if text.startswith(("another backbone", "another task")) else text
            for text in one.because
        ]
        text = f"{value}  {one.row.label}, {one.row.backbone}, {one.row.task} ({'; '.join(because)})"
        out.print(Padding(Text(text, style="dim"), (0, 0, 0, 2)), soft_wrap=False)
    if rest := len(elsewhere) - len(shown):
        told = f"  and {rest} more" if shown else f"{rest} rows were measured with other settings, and are not ranked"
        out.print(Text(f"{told}: --json", style="dim"))


def _print_ranking(ranking: Any) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("row", overflow="fold")
    piloted = any(entry.candidate.pilot for entry in ranking.entries)
    for name in ("fits", "micro-batch", "needs", "room", "trainable", "pilot" if piloted else "measured"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    details = []
    for entry in ranking.entries:
        needs, setting = entry.candidate.needs, entry.setting
        title = Text(entry.candidate.name, style="bold" if entry is ranking.choice else "")
        details += [f"{entry.candidate.name}: {text}" for text in _remarks(entry, piloted)]
        if setting is None:
            table.add_row(title, Text("refused", "yellow"))
            continue
        size = f"{setting.micro_batch_size} of {entry.candidate.cell.recipe.training.batch_size}"
        room = setting.room_bytes
        table.add_row(
            title,
            Text(setting.fits, style=_FIT_STYLES[setting.fits]),
            size + (" gc" if setting.gradient_checkpointing else ""),
            format_bytes(setting.train_bytes),
            format_bytes(room) if room >= 0 else f"−{format_bytes(-room)}",
            _short_count(needs.parameters.trainable) if needs.parameters else "–",
            _measured(entry, piloted),
            _mark(entry, piloted),
        )
    out.print(table, soft_wrap=False)
    if any(entry.setting and entry.setting.gradient_checkpointing for entry in ranking.entries):
        details.append("gc: with gradient checkpointing")
    if any(entry.standing and entry.standing.place == "alike" for entry in ranking.entries):
        details.append("≈: can't be told apart from the best that fits")
    for text in details:
        out.print(Padding(Text(text, style="dim"), (0, 0, 0, 2)), soft_wrap=False)


def _short_count(count: int) -> str:
    """Return a count in three digits: "941", "222k", "1.70M", "3.21B"."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:#.3g}".rstrip(".") + unit
    return str(count)


def _measured(entry: Any, piloted: bool) -> str:
    if piloted:
        return f"{entry.candidate.pilot.value:.3f}" if entry.candidate.pilot else "–"
    return "–" if entry.value is None else f"{entry.value:.3f}"


def _mark(entry: Any, piloted: bool) -> str:
    """Return how a row stands, in a word."""
    if entry.excluded:
        return "over budget"
    if piloted:
        return f"round {entry.candidate.pilot.round}" if entry.candidate.pilot else ""
    if entry.standing is None:
        return ""
    return str({"best": "best", "alike": "≈", "behind": "behind", "not tested": "?"}[entry.standing.place])


def _remarks(entry: Any, piloted: bool) -> Iterator[str]:
    """Yield what there is to say of a row below the table."""
    support = entry.candidate.support
    if entry.candidate.needs.refusal:
        yield f"refused: {entry.candidate.needs.refusal}"
    if entry.excluded:
        yield entry.excluded
    if support and support.differs and not piloted:
        yield f"measured with {', '.join(support.differs)}"
    for warning in support.row.warnings if support and not piloted else ():
        yield f"when measured: {warning}"
    for doubt in entry.candidate.needs.doubts:
        yield f"low confidence: {doubt}"


def _print_ladder(rankings: Sequence[Any]) -> None:
    """Print the choice at each memory size; equal neighbours are one line."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name, side in (
        ("memory", "right"),
        ("choice", "left"),
        ("measured", "right"),
        ("needs", "right"),
        ("", "left"),
    ):
        table.add_column(name, justify=side, overflow="fold")  # type: ignore[arg-type]
    steps: list[list[Any]] = []
    seen: set[str] = set()
    for ranking in rankings:
        same = steps and _step(steps[-1][-1]) == _step(ranking)
        if same:
            steps[-1].append(ranking)
        else:
            steps.append([ranking])
    for members in steps:
        first, last = members[0], members[-1]
        sizes = " to ".join(dict.fromkeys(_gib(one.memory_bytes) for one in (first, last)))
        choice = first.choice
        if choice is None:
            fitting = [entry.candidate.name for entry in first.entries if entry.fits == "yes" and not entry.excluded]
            new = [name for name in fitting if name not in seen]
            told = f"no evidence; fit{' besides' if seen else ''}: {', '.join(new)}" if new else first.reason
            seen |= set(fitting)
            table.add_row(sizes, "–", "–", "", told)
            continue
        table.add_row(
            sizes,
            choice.told,
            _measured(choice, bool(choice.candidate.pilot)),
            format_bytes(choice.setting.train_bytes),
        )
    out.print(table, soft_wrap=False)
    if rankings[-1].choice:
        out.print(Text(f"\nAt {_gib(rankings[-1].memory_bytes)}: {rankings[-1].reason}"), soft_wrap=False)
    elif seen:
        out.print("\nRun the recipe, or give --probe MINUTES, to choose.")


def _step(ranking: Any) -> Any:
    """Return what makes two steps of the ladder the same on the screen."""
    if ranking.choice is None:
        return [entry.candidate.name for entry in ranking.entries if entry.fits == "yes"], ranking.reason[:10]
    return ranking.choice.told


def _gib(size: int) -> str:
    return f"{size / 2**30:g} GiB" if size % 2**30 == 0 else format_bytes(size)


def print_evidence(imported: Sequence[Any]) -> None:
    """Print a line for each result that was read, and below it what of it has no place in pewb."""
    for one in imported:
        record = one.record
        metric = record.metrics.get(record.main_metric or "")
        value = f"{metric.value:.3f}" if metric else record.status
        storage = "" if record.quantization == "none" else f", {record.quantization}"
        out.print(
            Text.assemble(f"{value}  ", (record.strategy, "bold"), f" {record.settings}{storage}"),
            Text(f"on {record.backbone}, {record.task}", style="dim"),
        )
        for text in one.unmapped:
            out.print(f"       not mapped: {text}", markup=False)
    out.print(f"{len(imported)} result{'s' * (len(imported) != 1)} read; give them to pewb choose as --evidence")


_FIT_STYLES = {"yes": "green", "borderline": "yellow", "no": "red"}


def plan_facts(plan: Any) -> list[tuple[str, str]]:
    """Return what there is to say of one plan, each with its name."""
    found, training = plan.estimate, plan.recipe.training
    train = found.train
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in train.peak.by_category.items() if size)
    reserved = f", {format_bytes(train.reserved_bytes)} with what the allocator holds" if train.reserved_bytes else ""
    none = "none for certain" if found.fits == "borderline" else "not even one"
    largest = none if found.fits and found.largest_micro_batch is None else found.largest_micro_batch
    facts = [
        ("fits", {None: "no limit is known"}.get(found.fits, found.fits)),
        ("training peak", f"{format_bytes(train.allocated_bytes)} of tensors{reserved}"),
        ("made of", parts),
        ("reached at", " in ".join(part for part in (train.peak.operation, train.peak.module) if part)),
        ("evaluation peak", f"{format_bytes(found.evaluation.needed_bytes)}, {found.evaluation_batch_size} at once"),
        (
            "micro-batch",
            f"{found.micro_batch_size} of a batch of {training.batch_size}; the largest that fits: {largest}",
        ),
        (
            "parameters",
            f"{format_count(found.parameters.trainable)} trained (head {format_count(found.parameters.head)})"
            f" of {format_count(found.parameters.total)}",
        ),
        ("to be shipped", format_bytes(found.shipped_bytes)),
        ("a step", _step_told(found)),
        ("precision", f"{found.precision}, attention: {', '.join(found.kernels) or 'no fused kernel'}"),
        ("confidence", found.confidence),
    ]
    return [(name, str(text)) for name, text in facts]


def _step_told(found: Any) -> str:
    operations = f"{found.step_flops / 1e12:.3g} Tflop"
    if found.step_seconds_at_least is None:
        return f"{operations}; how long is not known"
    return f"{operations}, at least {found.step_seconds_at_least:.2g} s at the device's quoted peak rate"


_FEW = 3
"""So many runs are told with all that is known of them; of more, a line for each."""


def print_runs(done: list[Any]) -> None:
    """Print what each (record, path) says of its run."""
    if len(done) > _FEW:
        _print_lines(done)
        return
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


def _print_lines(done: list[Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for record, _ in done:
        metric = record.metrics.get(record.main_metric)
        value = (
            f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"
            if metric
            else (record.reason or "").splitlines()[0]
        )
        what = f"{record.strategy}: {record.settings}" + (
            f", {record.quantization}" if record.quantization != "none" else ""
        )
        style = {"success": "green", "refused": "yellow"}.get(record.status, "red")
        table.add_row(Text(what), f"seed {record.seed}", Text(record.status, style), Text(value))
    out.print(table, soft_wrap=False)


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
        yield "memory in training", f"{live} of live tensors, {held}{resident} resident{_planned(record)}"
        took, total = format_seconds(time_.train_seconds), format_seconds(time_.total_seconds)
        yield "time", f"{took} training at {time_.samples_per_second or 0:.0f} samples/s, {total} in all"
        yield "precision", record.precision
        folder = path.parent / record.model
        here = f"in {folder}" if folder.is_dir() else "which is not in this folder; --rerun makes it"
        yield "to ship", f"{format_bytes(record.shipped_bytes)} {here}"
    yield from (("notice", text) for text in record.notices)
    yield from (("warning", text) for text in record.warnings)
    if record.traceback and record.status == "failed":
        yield "traceback", "in the record"
    yield "record", str(path)


_NARROW = 100
"""Columns of a terminal below which it gets a smaller table."""

_NAME_WIDTH = 24
"""Characters of a row's name on one line of a smaller table."""


def print_leaderboard(board: Any) -> None:
    """Print a leaderboard as tables; below each, what is to be known of its rows and what follows from it."""
    narrow = out.width < _NARROW
    for group in board.groups:
        columns, rows = group.to_table(narrow)
        shown = columns[:-1] if narrow else columns
        table = Table(title=Text(group.title), title_justify="left", box=None, header_style="bold", pad_edge=False)
        table.padding = (0, 1, 0, 0) if narrow else (0, 1)
        for name in shown:
            words = name in (columns[0], columns[-1])
            table.add_column(name, justify="left" if words else "right", overflow="fold", no_wrap=not words)
        details = []
        for entry, row in zip(group.rows, rows, strict=True):
            status, *detail = re.split(r"[:;] ", row[-1], maxsplit=1)
            if narrow and row[-1] != "success":
                detail = [row[-1]]
            cells = [_broken(row[0], _NAME_WIDTH) if narrow else row[0], *row[1:-1], status]
            style = "" if entry.kind == "strategy" else "italic"
            table.add_row(*(Text(text, style) for text in cells[: len(shown)]))
            details += [f"{row[0]}: {text}" for text in detail]
        out.print(table, soft_wrap=False)
        if narrow:
            details.append("± the larger half of the 95 % interval")
        if "marks" in columns:
            details.append("≈ can't be told apart from the best; ◆ Pareto-optimal; ? not tested")
        details += [f"{head}: {text}" for head, text in group.conclusions]
        for text in details:
            out.print(Padding(Text(text, style="dim"), (0, 0, 0, 2)), soft_wrap=False)
        out.print()


def _broken(name: str, width: int) -> str:
    """Return a name on lines of at most `width` characters, broken behind spaces and underscores where it can be."""
    lines = [""]
    for word in re.findall(r"[^ _]*[ _]?", name):
        if lines[-1] and len(lines[-1]) + len(word.rstrip(" ")) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip(" ") for line in lines)


def print_comparison(comparison: Any) -> None:
    """Print whether two rows differ, and what each costs."""
    rows = (comparison.one, comparison.other)
    out.print(Text.assemble((comparison.verdict, "bold"), "."), soft_wrap=False)
    out.print(Text(f"Difference in accuracy: {comparison.evidence}"), soft_wrap=False)
    out.print()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, name in enumerate(("", *comparison.names, "ratio")):
        table.add_column(Text(name), justify="right" if place else "left", overflow="fold")
    table.add_row("accuracy", *(f"{row.main.value:.3f} [{row.main.low:.3f}, {row.main.high:.3f}]" for row in rows), "")
    table.add_row("seeds", *(", ".join(map(str, row.seeds)) for row in rows), "")
    for price in comparison.prices:
        ratio = "" if price.ratio is None else f"{price.ratio:.3g}"
        table.add_row(price.name, price.one, price.other, ratio)
    out.print(table, soft_wrap=False)
    for text in comparison.notes:
        out.print(Text(f"Note: {text}.", style="yellow"), soft_wrap=False)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on standard output."""
    can_all = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=not can_all) + "\n")


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
    """Shows progress as plain lines, at most one in ten seconds, in pipes and in CI."""

    def __init__(self) -> None:
        self._stage = ""
        self._shown = 0.0
        self._states: list[str] = []

    def notice(self, text: str) -> None:
        err.print(text, markup=False, soft_wrap=True)

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        now = time.monotonic()
        if stage == self._stage and now - self._shown < 10:
            return
        self._stage, self._shown = stage, now
        share = f" {done / total:.0%}" if total else ""
        err.print(f"{stage}{share}  {detail}".rstrip(), markup=False, soft_wrap=True)

    def standing(self, steps: Sequence[Step], seconds_left: float | None) -> None:
        before = self._states or [""] * len(steps)
        self._states = [step.state for step in steps]
        for step, known in zip(steps, before, strict=True):
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
