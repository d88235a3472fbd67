"""Recipes to results: `pewb run`, and `pewb check` before it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pewb.cli.boards import redraw_if_possible
from pewb.cli.options import JsonOption, OnlyOption, RecipeArgument, ResultsOption, SetOption
from pewb.screen import out, print_cells, print_json, print_runs, reporting


def run(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    results: ResultsOption = Path("results"),
    only: OnlyOption = None,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            min=1,
            metavar="N",
            help="Runs at once; they share the CPU's cores: times suffer, and last digits depend on the threads.",
        ),
    ] = 1,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Run again what has a record already; the old record stays.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train and evaluate what a recipe asks for, record it, and redraw leaderboard.md.

    Every run gets its own process and one record in the results folder, whether it succeeds, fails or runs out of memory.
    A run that has a record for the same recipe, files and kind of device is not run again, so a comparison that was
    interrupted goes on where it stopped. The record of a run is a recipe too. Exit status: 0 done, 1 a run failed (a row
    that is refused has not failed), 2 the input is wrong.

    For example:

    - `pewb run recipes/lora_sst2.toml`
    - `pewb run recipes/lora_sst2.toml --set strategy=head_only --set training.epochs=1`
    - `pewb run recipes/compare_sst2.toml --only lora --only full`
    - `pewb run results/RUN.json --results /tmp/again/results`
    """
    from pewb.recipe import load_recipe
    from pewb.runner import run as run_recipe

    loaded = load_recipe(recipe, overrides or (), only or ())
    try:
        with reporting() as reporter:
            done = run_recipe(loaded, results, reporter, num_jobs=jobs, rerun=rerun)
    except KeyboardInterrupt:
        if results.is_dir():
            redraw_if_possible(results)
        raise
    page = redraw_if_possible(results)
    if as_json:
        print_json({"runs": [record.summary(path) for record, path in done]})
    else:
        print_runs(done)
        if page:
            out.print(f"[dim]{escape(str(page))} holds the comparison over all records in {escape(str(results))}/[/]")
    if any(record.status not in ("success", "refused") for record, _ in done):
        raise typer.Exit(1)


def check(recipe: RecipeArgument, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Check a recipe, and the local files it names, without training anything; tells every fault at once."""
    from pewb.recipe import load_recipe
    from pewb.runner.prepare import check as check_recipe

    loaded = load_recipe(recipe, overrides or ())
    facts = check_recipe(loaded)
    if as_json:
        print_json(
            {
                "recipes": [cell.recipe.model_dump(mode="json") | {"refusal": cell.refusal} for cell in loaded.cells],
                "facts": facts,
            }
        )
        return
    out.print(f"[green]{escape(str(recipe))} is right[/]: {len(loaded.cells)} row{'s' * (len(loaded.cells) > 1)}")
    print_cells(loaded.cells)
    for fact in facts:
        out.print(f"  {fact}", markup=False)
