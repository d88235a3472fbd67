"""What the doctor found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.padding import Padding
from rich.text import Text

from pewb.screen.consoles import out

_STYLES = {"ok": "green", "warning": "yellow", "fault": "red"}


def print_findings(findings: Sequence[Any]) -> None:
    """Print a line for each finding, and below it what to do."""
    for one in findings:
        out.print(Text.assemble((f"{one.state:<9}", _STYLES[one.state]), (f"{one.name:<15}", "bold"), one.text))
        if one.remedy:
            out.print(Padding(Text(f"→ {one.remedy}", style="dim"), (0, 0, 0, 24)), soft_wrap=False)
    if all(one.state == "ok" for one in findings):
        out.print("All is well.")
