"""What was measured: `pewb leaderboard` and `pewb compare`, and the page that runs redraw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pewb.cli.options import JsonOption, ResultsOption
from pewb.errors import InputError, PewbError
from pewb.screen import err, out, print_comparison, print_json, print_leaderboard


def leaderboard(
    results: ResultsOption = Path("results"),
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Where the page goes; leaderboard.md beside the results folder."),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--task", metavar="TASK", help="Show the tables of this task alone; may be repeated. All are written."
        ),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            "--plots", metavar="FOLDER", help="Draw each table that is shown as an SVG picture, too; needs altair."
        ),
    ] = None,
    as_evidence: Annotated[
        bool, typer.Option("--evidence", help="Show the records that pewb is shipped with, and write no page.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw leaderboard.md from the records in the results folder, and show it.

    For example: `pewb leaderboard --task movie-snippets`
    """
    from pewb.leaderboard import Leaderboard

    folder = _folder(results, as_evidence, "leaderboard")
    board = Leaderboard.from_results(folder)
    page = None if as_evidence else board.write(output or _page_of(results))
    board = board.of_tasks(tasks) if tasks else board
    pictures = board.plot(plots) if plots else []
    if as_json:
        print_json(board.to_json())
        return
    print_leaderboard(board)
    for path in [*([page] if page else []), *pictures]:
        out.print(f"[dim]written to {escape(str(path))}[/]")


def compare(
    one: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A row as the leaderboard calls it, a run's name, its record, or the beginning of what fits one row alone.",
        ),
    ],
    other: Annotated[str, typer.Argument(metavar="B", help="Likewise.")],
    results: ResultsOption = Path("results"),
    task: Annotated[str | None, typer.Option("--task", metavar="TASK", help="Look in the tables of this task.")] = None,
    train_examples: Annotated[
        int | None,
        typer.Option("--train-examples", metavar="N", help="Look in the tables of so many training examples."),
    ] = None,
    as_evidence: Annotated[
        bool, typer.Option("--evidence", help="Compare among the records that pewb is shipped with.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say whether two runs or rows of the leaderboard really differ, and what each costs.

    A paired test on the same test examples: McNemar's exact test for single runs whose examples are right or wrong, a
    bootstrap over the examples for all else.

    For example:

    - `pewb compare "lora nf4" full`
    - `pewb compare lora full --task movie-snippets --train-examples 1000`
    """
    from pewb.leaderboard import compare as compare_rows

    comparison = compare_rows(one, other, _folder(results, as_evidence, "compare A B"), task, train_examples)
    if as_json:
        print_json(comparison.to_json())
    else:
        print_comparison(comparison)


def _folder(results: Path, as_evidence: bool, command: str) -> Path:
    from pewb.leaderboard import evidence_folder

    folder = evidence_folder() if as_evidence else results
    if folder is None:
        raise InputError("--evidence: this installation came without records; install pewb anew from its wheel")
    if not folder.is_dir():
        raise InputError(
            f"--results {results}: no such folder; a run makes it: pewb run recipes/lora_sst2.toml."
            f" The records that pewb is shipped with: pewb {command} --evidence"
        )
    return folder


def _page_of(results: Path) -> Path:
    return results.parent / "leaderboard.md"


def _redraw(results: Path) -> Path:
    from pewb.leaderboard import Leaderboard

    return Leaderboard.from_results(results).write(_page_of(results))


def redraw_if_possible(results: Path) -> Path | None:
    """Redraw the page after runs; what hinders that must not hide what they brought."""
    try:
        return _redraw(results)
    except (PewbError, OSError) as error:
        err.print(f"the leaderboard is not redrawn: {error}", markup=False, soft_wrap=True)
        return None
