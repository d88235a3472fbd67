"""Results in PEFT's schema, read and written: `pewb evidence import` and `pewb evidence export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pewb.cli.options import JsonOption, ResultsOption
from pewb.errors import InputError
from pewb.screen import out, print_evidence, print_json

evidence_app = typer.Typer(
    no_args_is_help=True,
    help="Exchange what was measured with PEFT's published method comparison, in its own result schema.",
)


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
