"""Evidence that was read from elsewhere, and what of it has no place in pewb."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from pewb.screen.consoles import out


def print_evidence(imported: Sequence[Any]) -> None:
    """Print a line for each result that was read, and below it what of it has no place in pewb."""
    for one in imported:
        record = one.record
        metric = record.metrics.get(record.main_metric or "")
        value = f"{metric.value:.3f}" if metric else record.status
        storage = "" if record.quantization == "none" else f", {record.quantization}"
        out.print(
            Text.assemble(f"{value}  ", (record.strategy, "bold"), f" {record.settings}{storage}"),
            Text(f"on {record.backbone}, {record.task}", style="dim"),
        )
        for text in one.unmapped:
            out.print(f"       not mapped: {text}", markup=False)
    out.print(f"{len(imported)} result{'s' * (len(imported) != 1)} read; give them to pewb choose as --evidence")
