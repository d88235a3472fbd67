"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

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
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="STRATEGY", help="Of a comparison, the rows of this strategy; may be repeated."),
]
ResultsOption = Annotated[Path, typer.Option("--results", metavar="FOLDER", help="Folder of the records.")]
