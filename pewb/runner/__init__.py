"""From a recipe to runs, each in its own process, and their records."""

from __future__ import annotations

from pathlib import Path

from pewb.recipe import LoadedRecipe
from pewb.record import Record
from pewb.reporting import Reporter, Silent
from pewb.runner.prepare import prepare
from pewb.runner.process import reserve, run_in_process

__all__ = ["prepare", "run"]


def run(
    loaded: LoadedRecipe, results: str | Path = "results", reporter: Reporter | None = None
) -> list[tuple[Record, Path]]:
    """Do every run of a recipe, one after another, and return each record with its path.

    A run that fails or does not fit is a record that says so; the others go on.

    Raises:
        InputError: the recipe or what it names does not serve.
    """
    reporter = reporter or Silent()
    done = []
    for prepared in prepare(loaded, Path(results), reporter):
        job = reserve(prepared)
        reporter.notice(f"run {job.run}")
        done.append(run_in_process(job, reporter))
    return done
