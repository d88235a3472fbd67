"""The command line: parse, call one function, print."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
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
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, highlight=False)

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
    """
    from pewb.recipe import load_recipe
    from pewb.runner import run as run_recipe

    loaded = load_recipe(recipe, overrides or ())
    try:
        with _reporting() as reporter:
            done = run_recipe(loaded, results, reporter)
    finally:
        if results.is_dir():
            page = _redraw(results)
    if as_json:
        _print_json({"runs": [record.summary(path) for record, path in done]})
    else:
        _print_runs(done)
        out.print(f"[dim]{page} holds the comparison over all records in {results}/[/]")
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
        f"[green]{recipe} is right[/]: {loaded.recipe.strategy.kind}, quantization {loaded.recipe.quantization}, learning rate {loaded.recipe.training.learning_rate:g}"
    )
    for fact in facts:
        out.print(f"  {fact}")


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
        out.print(f"[bold]{asset.name}[/]  {asset.source}  {len(asset.digests)} files, verified, in {asset.folder}")


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
    out.print(f"[dim]written to {page}[/]")


def _redraw(results: Path, output: Path | None = None) -> Path:
    from pewb.leaderboard import Leaderboard

    page = output or results.parent / "leaderboard.md"
    Leaderboard.from_results(results).write(page)
    return page


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
    out.print(f"[bold]{facts.pop('name')}[/]  {facts.pop('description')}")
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
        out.print(
            f"\n[bold]{record.strategy}[/] on {record.backbone}, {record.task}, seed {record.seed}: [{'green' if good else 'red'}]{record.status}[/]"
        )
        if record.reason:
            out.print(f"  {record.reason}")
        for name, metric in record.metrics.items():
            untouched = record.baseline.get(name)
            before = f"   untouched model {untouched.value:.3f}" if untouched else ""
            out.print(
                f"  {name.replace('_', ' '):<21}{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]{before}",
                markup=False,
            )
        if record.parameters:
            share = record.parameters.trainable / record.parameters.total
            out.print(
                f"  trainable            {format_count(record.parameters.trainable)} of {format_count(record.parameters.total)} ({share:.2%}), head {format_count(record.parameters.head)}"
            )
        if good:
            peak = record.memory.train
            rate = record.time.samples_per_second or 0
            out.print(
                f"  memory in training   {format_bytes(peak.peak_reserved_bytes or peak.peak_allocated_bytes)} of tensors, {format_bytes(peak.peak_resident_bytes)} resident"
            )
            out.print(
                f"  time                 {format_seconds(record.time.train_seconds)} training at {rate:.0f} samples/s, {format_seconds(record.time.total_seconds)} in all ({record.precision})"
            )
            out.print(f"  to ship              {format_bytes(record.shipped_bytes)} in {path.parent / record.model}")
        for warning in record.warnings:
            out.print(f"  [yellow]warning[/]              {warning}")
        out.print(f"  record               {path}")


def _print_leaderboard(board: Any) -> None:
    for group in board.groups:
        columns, rows = group.to_table()
        table = Table(title=group.title, title_justify="left", box=None, header_style="bold", pad_edge=False)
        for number, name in enumerate(columns):
            table.add_column(name, justify="left" if number == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        out.print(table, soft_wrap=False)
        out.print()


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


class _Bar:
    """Shows progress as a bar, on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage = ""
        self._task: Any = None

    def notice(self, text: str) -> None:
        self._progress.console.print(text, markup=False)

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        if stage != self._stage:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._stage, self._task = stage, self._progress.add_task(stage, total=total)
        self._progress.update(self._task, completed=done, total=total, detail=detail)


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
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[detail]}"),
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
    except KeyboardInterrupt:
        err.print("interrupted; what was done is recorded")
        sys.exit(130)
