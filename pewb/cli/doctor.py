"""Is all well here? `pewb doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from pewb.cli.options import JsonOption
from pewb.screen import out, print_findings, print_json, reporting


def doctor(
    with_measurements: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Train a dozen small cells on this device, some minutes, and print their plans beside what was measured.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is here, what does not work and what to do about it; or hold the planner against this device.

    Looked at: the versions of the libraries, the device and its memory, quantised layers, the cache, the model hub and the
    package index. With --measure the answer is a table in Markdown, to be pasted into an issue: small random backbones are
    trained as any run is, nothing is downloaded and nothing kept. Exit status: 0 all is well, 1 something is at fault, or
    a cell failed.

    For example: `pewb doctor --measure`
    """
    from pewb.doctor import examine, measure

    if with_measurements:
        with reporting() as reporter:
            measured = measure(reporter)
        if as_json:
            print_json(measured.to_json())
        else:
            out.print(measured.to_markdown(), markup=False)
        if not measured.are_complete:
            raise typer.Exit(1)
        return
    with reporting() as reporter:
        findings = examine(reporter)
    if as_json:
        print_json({"findings": [finding.to_json() for finding in findings]})
    else:
        print_findings(findings)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)
