"""Before anything is trained: `pewb plan` and `pewb choose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pewb.cli.options import JsonOption, OnlyOption, RecipeArgument, SetOption
from pewb.errors import InputError, PewbError
from pewb.screen import err, print_choice, print_json, print_plans, reporting
from pewb.units import parse_count, parse_seconds


def plan(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", metavar="NAME", help="Plan for this GPU, such as rtx-4090 (pewb list gpus)."),
    ] = None,
    gpu_memory: Annotated[
        str | None, typer.Option("--gpu-memory", metavar="SIZE", help="Plan for a GPU with so much memory: 8GiB.")
    ] = None,
    only: OnlyOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also print what the simulation assumes, and what it can't know.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a recipe would need, and whether it fits, before anything is trained and without a GPU.

    The run's own training step is simulated on tensors without numbers: no weights and no data are needed, only the
    architecture (of the catalogue, a folder's config.json, or the hub). Without --gpu or --gpu-memory the plan is for the
    device that a run would take here.

    For example:

    - `pewb plan recipes/lora_sst2.toml --gpu t4`
    - `pewb plan recipes/qlora_llama3_8b.toml --gpu-memory 12GiB --explain`
    - `pewb plan recipes/compare_sst2.toml --gpu-memory 8GiB --set backbone=roberta-base`
    """
    from pewb.quiet import quieten_libraries
    from pewb.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or (), only or ())
    quieten_libraries()
    from pewb.planner.plan import plan as plan_recipe
    from pewb.planner.target import choose_target

    target = choose_target(loaded.cells[0].recipe.device, gpu, gpu_memory)
    with reporting() as reporter:
        plans = plan_recipe(loaded, target, reporter)
    if as_json:
        documents = [one.to_json() for one in plans]
        print_json(documents[0] if len(documents) == 1 else {"plans": documents})
        return
    print_plans(plans, explain)


def choose(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", metavar="NAME", help="Choose for this GPU, such as rtx-4090 (pewb list gpus)."),
    ] = None,
    gpu_memory: Annotated[
        list[str] | None,
        typer.Option(
            "--gpu-memory",
            metavar="SIZE",
            help="Choose for a GPU with so much memory: 8GiB. May be repeated; left out: 4 to 80 GiB, step by step.",
        ),
    ] = None,
    max_trainable: Annotated[
        str | None,
        typer.Option("--max-trainable", metavar="N", help="Train at most so many parameters: 300k, 1.5M."),
    ] = None,
    max_train_time: Annotated[
        str | None,
        typer.Option(
            "--max-train-time", metavar="TIME", help="Rows whose training was measured to be no longer: 30min."
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", metavar="FOLDER", help="Folder of your records; results/ if there is one."),
    ] = None,
    evidence: Annotated[
        list[Path] | None,
        typer.Option(
            "--evidence",
            metavar="FILE",
            help="Results in the schema of PEFT's method comparison, a file or a folder of them; may be repeated.",
        ),
    ] = None,
    only: OnlyOption = None,
    probe: Annotated[
        float | None,
        typer.Option(
            "--probe",
            metavar="MINUTES",
            min=0.1,
            max=10_080,
            help="Train the rows that fit for a few steps each on the recipe's own data, here, and rank them by that.",
        ),
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Write the choice as a recipe for pewb run.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which row of a recipe to take on a GPU: what fits, ranked by what was measured, and why.

    Every row is planned as `pewb plan` does, without checkpointing and, where the whole batch does not fit, with it, at the
    largest micro-batch that fits. Of the rows that fit, the cheapest in memory is taken that paired tests can't tell
    apart from the best. What was measured: your own records, those that pewb is shipped with, and --evidence; on another
    backbone or task it is shown, and not ranked. Where nothing was measured, nothing is chosen, unless --probe gets evidence.

    For example:

    - `pewb choose recipes/compare_basics_sst2.toml --gpu-memory 8GiB`
    - `pewb choose recipes/which_llama_fits.toml --gpu rtx-4090`
    - `pewb choose recipes/compare_basics_sst2.toml --max-trainable 300k --write chosen.toml`
    - `pewb choose mine.toml --gpu-memory 12GiB --probe 20`
    """
    from pewb.choosing import Budgets, targets_of
    from pewb.choosing import choose as choose_row
    from pewb.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or (), only or ())
    targets = targets_of([cell.recipe.device for cell in loaded.cells], gpu, gpu_memory or ())
    budgets = Budgets(
        None if max_trainable is None else parse_count(max_trainable),
        None if max_train_time is None else parse_seconds(max_train_time),
    )
    if write and write.exists():
        raise InputError(f"--write {write}: is already there; name another file, or remove it")
    if write and not write.parent.is_dir():
        raise InputError(f"--write {write}: there is no folder {write.parent}; make it first")
    pilots = None
    if probe is not None:
        from pewb.choosing.probe import Probe

        pilots = Probe(probe)
    with reporting() as reporter:
        chosen = choose_row(
            loaded,
            targets,
            reporter,
            results=results or (Path("results") if Path("results").is_dir() else None),
            evidence_files=evidence or (),
            budgets=budgets,
            probe=pilots,
        )
    if as_json:
        print_json(chosen.to_json())
    else:
        print_choice(chosen)
    if write:
        if chosen.choice is None:
            raise PewbError(f"--write {write}: nothing is chosen, so nothing is written")
        from pewb.choosing.written import write_recipe

        write_recipe(chosen.choice, chosen.ranking.reason, write)
        err.print(f"[dim]written: pewb run {escape(str(write))}[/]")
