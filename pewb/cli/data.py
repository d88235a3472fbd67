"""What a model will see of a task: `pewb data`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pewb.cli.options import JsonOption, RecipeArgument, SetOption
from pewb.screen import print_cleaned, print_data, print_json, reporting


def data(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    clean_folder: Annotated[
        Path | None,
        typer.Option(
            "--clean",
            metavar="FOLDER",
            help="Write a copy without duplicates and leaks into a new folder, and say what is left out.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a model will see: counts, lengths, classes, duplicates, leaks, what is cut, and examples token by token.

    Of a comparison, the first row's task and backbone are shown. Tokens that are learned stand between « and ».

    For example:

    - `pewb data recipes/lora_sst2.toml`
    - `pewb data recipes/lora_sst2.toml --set task=movie-snippets --clean clean/`
    """
    from pewb.inspection import clean, inspect
    from pewb.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    with reporting() as reporter:
        if clean_folder is not None:
            cleaned = clean(loaded, clean_folder, reporter)
        else:
            report = inspect(loaded, reporter)
    if clean_folder is not None:
        if as_json:
            print_json({"folder": str(cleaned.folder), "kept": cleaned.kept, "dropped": cleaned.dropped})
        else:
            print_cleaned(cleaned)
    elif as_json:
        print_json(asdict(report))
    else:
        print_data(report)
