"""From a recipe to runs, each in its own process, and their records."""

from __future__ import annotations

from pathlib import Path

from pewb.recipe import LoadedRecipe
from pewb.record import Record
from pewb.reporting import Reporter, Silent

__all__ = ["run"]


def run(
    loaded: LoadedRecipe,
    results: str | Path = "results",
    reporter: Reporter | None = None,
    *,
    num_jobs: int = 1,
    rerun: bool = False,
) -> list[tuple[Record, Path]]:
    """Do every run of a recipe and return each record with its path.

    A run that fails, does not fit or is refused is a record that says so; the others go on. What has a record already is
    not run again.

    Args:
        loaded: the recipe.
        results: the folder of the records.
        reporter: told of what is going on.
        num_jobs: runs at once.
        rerun: run again what has a record.

    Raises:
        InputError: the recipe or what it names does not serve.
        KeyboardInterrupt: after every process has written its record.
    """
    from pewb.runner.comparison import Comparison  # here, for `pewb check` imports this package and needs none of it
    from pewb.runner.prepare import prepare
    from pewb.runner.process import Children

    reporter = reporter or Silent()
    children = Children(num_jobs)
    children.prepare()
    rows = prepare(loaded, Path(results), reporter)
    return Comparison(rows, Path(results), reporter, children, rerun).run()
