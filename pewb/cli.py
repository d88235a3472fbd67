"""The command line: parse, call one function, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pewb.errors import InputError, PewbError
from pewb.screen import (
    err,
    out,
    print_cells,
    print_choice,
    print_comparison,
    print_entry,
    print_evidence,
    print_json,
    print_leaderboard,
    print_matrix,
    print_plans,
    print_runs,
    reporting,
)
from pewb.units import parse_count, parse_seconds

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which fine-tuning strategy for your backbone, your task and your GPU budget? **pewb** trains, measures, compares.\n\n"
    "Start with `pewb run recipes/lora_sst2.toml`; then read `leaderboard.md`.",
)

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


@app.command()
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
            _redraw_if_possible(results)
        raise
    page = _redraw_if_possible(results)
    if as_json:
        print_json({"runs": [record.summary(path) for record, path in done]})
    else:
        print_runs(done)
        if page:
            out.print(f"[dim]{escape(str(page))} holds the comparison over all records in {escape(str(results))}/[/]")
    if any(record.status not in ("success", "refused") for record, _ in done):
        raise typer.Exit(1)


@app.command()
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


@app.command()
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
    targets = targets_of(loaded.cells[0].recipe.device, gpu, gpu_memory or ())
    budgets = Budgets(
        parse_count(max_trainable) if max_trainable else None, parse_seconds(max_train_time) if max_train_time else None
    )
    if write and write.exists():
        raise InputError(f"--write {write}: is already there; name another file, or remove it")
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


evidence_app = typer.Typer(
    no_args_is_help=True,
    help="Exchange what was measured with PEFT's published method comparison, in its own result schema.",
)
app.add_typer(evidence_app, name="evidence")


@evidence_app.command("import")
def import_evidence(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Results in PEFT's schema, or folders of them.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Read results in PEFT's schema, and show them as evidence: what they are in pewb's words, and what has no place there.

    Nothing is stored: give the same files to `pewb choose --evidence`.

    For example: `pewb evidence import method_comparison/MetaMathQA/results`
    """
    from pewb.choosing.peft_results import read_results

    imported = read_results(files)
    if as_json:
        print_json({"evidence": [one.to_json() for one in imported]})
    else:
        print_evidence(imported)


@evidence_app.command("export")
def export_evidence(
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder of the files that are written.")],
    results: ResultsOption = Path("results"),
    as_json: JsonOption = False,
) -> None:
    """Write the records of successful runs in PEFT's result schema, a file each.

    What that schema has no place for stands under `meta_info.pewb`, so that `pewb evidence import` reads all of it again.

    For example: `pewb evidence export --to peft_results`
    """
    from pewb.choosing.peft_export import export_results

    if not results.is_dir():
        raise InputError(f"--results {results}: no such folder; a run makes it: pewb run recipes/lora_sst2.toml")
    written, left_out = export_results(results, to)
    if as_json:
        print_json({"files": [str(path) for path in written], "left_out": left_out})
        return
    out.print(f"{len(written)} files in {escape(str(to))}/")
    for text in left_out:
        out.print(f"  left out: {text}", markup=False)


@app.command()
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


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="strategies|tasks|backbones|gpus", help="What to list.")],
    as_matrix: Annotated[
        bool,
        typer.Option("--matrix", help="Strategies only: each × architecture × quantization, yes or refused, and why."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the strategies, the tasks and backbones of the catalogue, or the GPUs that have a name."""
    from pewb.listings import listing

    if as_matrix:
        if what != "strategies":
            raise InputError(f"--matrix is of strategies, not of {what}: pewb list strategies --matrix")
        from pewb.device import choose_device
        from pewb.listings import matrix, matrix_json
        from pewb.recipe import DeviceSection

        device = choose_device(DeviceSection()).type
        combinations = matrix(device)
        if as_json:
            print_json({"device": device} | matrix_json(combinations))
        else:
            print_matrix(combinations, device)
        return
    rows = listing(what)
    if as_json:
        print_json({what: rows})
        return
    for row in rows:
        print_entry(row)


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

    with reporting() as reporter:
        assets = [
            fetch_asset("task" if task or name in catalogue_tasks() else "backbone", name, reporter, renew=renew)
            for name in names
        ]
    if as_json:
        print_json({"assets": [asset.to_record().model_dump() | {"folder": str(asset.folder)} for asset in assets]})
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
    as_evidence: Annotated[
        bool, typer.Option("--evidence", help="Show the records that pewb is shipped with, and write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw leaderboard.md from the records in the results folder, and show it."""
    from pewb.leaderboard import Leaderboard, evidence_folder

    folder = evidence_folder() if as_evidence else results
    if folder is None:
        raise InputError("--evidence: this installation came without records; install pewb anew from its wheel")
    if not folder.is_dir():
        raise InputError(
            f"--results {results}: no such folder; a run makes it: pewb run recipes/lora_sst2.toml."
            " The records that pewb is shipped with: pewb leaderboard --evidence"
        )
    board = Leaderboard.from_results(folder)
    page = None if as_evidence else board.write(output or _page_of(results))
    if as_json:
        print_json(board.to_json())
        return
    print_leaderboard(board)
    if page:
        out.print(f"[dim]written to {escape(str(page))}[/]")


@app.command()
def compare(
    one: Annotated[
        str,
        typer.Argument(metavar="A", help="A run's name, its record, or the beginning of what fits one row alone."),
    ],
    other: Annotated[str, typer.Argument(metavar="B", help="Likewise.")],
    results: ResultsOption = Path("results"),
    as_json: JsonOption = False,
) -> None:
    """Say whether two runs or rows of the leaderboard really differ, and what each costs.

    A paired test on the same test examples: McNemar's exact test for single runs, a bootstrap over the examples
    where a row has several seeds.

    For example: `pewb compare lora-minilm-l6-movie-snippets-seed full`
    """
    from pewb.leaderboard import compare as compare_rows

    if not results.is_dir():
        raise InputError(f"--results {results}: no such folder; a run makes it: pewb run recipes/lora_sst2.toml")
    comparison = compare_rows(one, other, results)
    if as_json:
        print_json(comparison.to_json())
    else:
        print_comparison(comparison)


def _page_of(results: Path) -> Path:
    return results.parent / "leaderboard.md"


def _redraw(results: Path) -> Path:
    from pewb.leaderboard import Leaderboard

    return Leaderboard.from_results(results).write(_page_of(results))


def _redraw_if_possible(results: Path) -> Path | None:
    """Redraw the page after runs; what hinders that must not hide what they brought."""
    try:
        return _redraw(results)
    except (PewbError, OSError) as error:
        err.print(f"the leaderboard is not redrawn: {error}", markup=False, soft_wrap=True)
        return None


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
