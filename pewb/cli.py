"""The command line: parse, call one function, print."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pewb.errors import InputError, PewbError
from pewb.units import format_bytes, format_count, format_seconds

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which fine-tuning strategy for your backbone, your task and your GPU budget? **pewb** trains, measures, compares.\n\n"
    "Start with `pewb run recipes/lora_sst2.toml`; then read `leaderboard.md`.",
)
out = Console(soft_wrap=True, highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)

RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A TOML recipe, such as recipes/lora_sst2.toml.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Override a key of the recipe; may be repeated. Example: --set training.epochs=1",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output; progress goes to standard error.")
]
ResultsOption = Annotated[Path, typer.Option("--results", metavar="FOLDER", help="Folder of the records.")]


@app.command()
def run(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    results: ResultsOption = Path("results"),
    as_json: JsonOption = False,
) -> None:
    """Train and evaluate what a recipe asks for, record it, and redraw leaderboard.md.

    Every run gets its own process and one record in the results folder, whether it succeeds, fails or runs out of memory.
    Exit status: 0 done, 1 a run failed, 2 the input is wrong.

    For example:

    - `pewb run recipes/lora_sst2.toml`
    - `pewb run recipes/lora_sst2.toml --set strategy=head_only --set training.epochs=1`
    """
    from pewb.recipe import load_recipe
    from pewb.runner import run as run_recipe

    loaded = load_recipe(recipe, overrides or ())
    try:
        with _reporting() as reporter:
            done = run_recipe(loaded, results, reporter)
    except KeyboardInterrupt:
        if results.is_dir():
            _redraw_if_possible(results)
        raise
    page = _redraw_if_possible(results)
    if as_json:
        _print_json({"runs": [record.summary(path) for record, path in done]})
    else:
        _print_runs(done)
        if page:
            out.print(f"[dim]{escape(str(page))} holds the comparison over all records in {escape(str(results))}/[/]")
    if any(record.status != "success" for record, _ in done):
        raise typer.Exit(1)


@app.command()
def check(recipe: RecipeArgument, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Check a recipe, and the local files it names, without training anything; tells every fault at once."""
    from pewb.recipe import load_recipe
    from pewb.runner.prepare import check as check_recipe

    loaded = load_recipe(recipe, overrides or ())
    facts = check_recipe(loaded.recipe)
    if as_json:
        _print_json({"recipe": loaded.recipe.model_dump(mode="json"), "facts": facts})
        return
    out.print(
        f"[green]{escape(str(recipe))} is right[/]: {loaded.recipe.strategy.kind}, quantization {loaded.recipe.quantization}, learning rate {loaded.recipe.training.learning_rate:g}"
    )
    for fact in facts:
        out.print(f"  {fact}", markup=False)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="strategies|tasks|backbones", help="What to list.")],
    as_json: JsonOption = False,
) -> None:
    """List the strategies, or the tasks and backbones of the catalogue."""
    listings = {"strategies": _strategy_rows, "tasks": _task_rows, "backbones": _backbone_rows}
    if what not in listings:
        from pewb.errors import nearest

        raise InputError(f"list: got '{what}'{nearest(what, list(listings))}; allowed: {', '.join(listings)}")
    rows = listings[what]()
    if as_json:
        _print_json({what: rows})
        return
    for row in rows:
        _print_entry(row)


@app.command()
def fetch(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Catalogue names, hub ids (org/name) or folders.")
    ],
    task: Annotated[bool, typer.Option("--task", help="A hub id names a data set, not a backbone.")] = False,
    renew: Annotated[
        bool, typer.Option("--renew", help="Forget the recorded revision and digests, and take what is there now.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Download and verify backbones and tasks before they are needed, into the cache (PEWB_CACHE)."""
    from pewb.assets import fetch as fetch_asset
    from pewb.assets import tasks as catalogue_tasks

    with _reporting() as reporter:
        assets = [
            fetch_asset("task" if task or name in catalogue_tasks() else "backbone", name, reporter, renew=renew)
            for name in names
        ]
    if as_json:
        _print_json({"assets": [asset.to_record().model_dump() | {"folder": str(asset.folder)} for asset in assets]})
        return
    for asset in assets:
        out.print(f"[bold]{escape(asset.name)}[/]", end="")
        out.print(f"  {asset.source}  {len(asset.digests)} files, verified, in {asset.folder}", markup=False)


@app.command()
def leaderboard(
    results: ResultsOption = Path("results"),
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Where the page goes; leaderboard.md beside the results folder."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw leaderboard.md from the records in the results folder, and show it."""
    from pewb.leaderboard import Leaderboard

    if not results.is_dir():
        raise InputError(f"--results {results}: no such folder; a run makes it: pewb run recipes/lora_sst2.toml")
    board = Leaderboard.from_results(results)
    page = _redraw(results, output)
    if as_json:
        _print_json(board.to_json())
        return
    _print_leaderboard(board)
    out.print(f"[dim]written to {escape(str(page))}[/]")


def _redraw(results: Path, output: Path | None = None) -> Path:
    from pewb.leaderboard import Leaderboard

    page = output or results.parent / "leaderboard.md"
    Leaderboard.from_results(results).write(page)
    return page


def _redraw_if_possible(results: Path) -> Path | None:
    """Redraw the page after runs; what hinders that must not hide what they brought."""
    try:
        return _redraw(results)
    except (PewbError, OSError) as error:
        err.print(f"the leaderboard is not redrawn: {error}", markup=False, soft_wrap=True)
        return None


def _strategy_rows() -> list[dict[str, Any]]:
    from pewb.strategies import strategies

    return [
        {
            "name": name,
            "description": strategy.trains,
            "learning_rate": strategy.default_learning_rate,
            "learning_rate_source": strategy.learning_rate_source,
            "quantization": list(strategy.quantizations),
            "keys": [key for key in strategy.model_fields if key != "kind"],
            "paper": strategy.paper,
        }
        for name, strategy in strategies().items()
    ]


def _task_rows() -> list[dict[str, Any]]:
    from pewb.assets import cached, tasks

    return [
        {
            "name": name,
            "description": entry.description,
            "kind": entry.spec["kind"],
            "license": entry.license,
            "cached": cached("task", name),
        }
        for name, entry in tasks().items()
    ]


def _backbone_rows() -> list[dict[str, Any]]:
    from pewb.assets import backbones, cached

    return [
        {
            "name": name,
            "description": entry.description,
            "architecture": entry.model_type,
            "parameters": entry.parameters,
            "license": entry.license,
            "cached": cached("backbone", name),
        }
        for name, entry in backbones().items()
    ]


def _print_entry(row: dict[str, Any]) -> None:
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


def _print_runs(done: list[Any]) -> None:
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


def _print_leaderboard(board: Any) -> None:
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


def _print_json(document: dict[str, Any]) -> None:
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
def _reporting() -> Iterator[_Bar | _Lines]:
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


def main() -> None:
    """Run the command line; errors that the user can mend become one message and exit status 2."""
    try:
        app(standalone_mode=True)
    except InputError as error:
        err.print(f"[red]error[/] {'' if len(str(error).splitlines()) == 1 else chr(10)}", end="")
        err.print(str(error), markup=False, soft_wrap=True)
        sys.exit(2)
    except PewbError as error:
        err.print(str(error), markup=False, soft_wrap=True)
        sys.exit(1)
    except OSError as error:
        err.print(str(error), markup=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == 130:  # typer's, after an interrupt
            err.print("interrupted; what was done is recorded")
        raise
