"""What there is, and getting it: `pewb list` and `pewb fetch`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from pewb.cli.options import JsonOption
from pewb.errors import InputError
from pewb.screen import out, print_entry, print_json, print_matrix, reporting


def list_(
    what: Annotated[str, typer.Argument(metavar="strategies|tasks|backbones|gpus|keys", help="What to list.")],
    as_matrix: Annotated[
        bool,
        typer.Option("--matrix", help="Strategies only: each × architecture × quantization, yes or refused, and why."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the strategies, the tasks and backbones of the catalogue, the GPUs that have a name, or the keys of a recipe."""
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
