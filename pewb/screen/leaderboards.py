"""Leaderboards as tables that fit the terminal, and two of their rows compared."""

from __future__ import annotations

import re
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pewb.leaderboard.cells import seeds_told
from pewb.screen.consoles import gathered, out

_NARROW = 116
"""Columns of a terminal below which it gets a smaller table."""

_NAME_WIDTH = 24
"""Characters of a row's name on one line of a smaller table."""


def print_leaderboard(board: Any) -> None:
    """Print a leaderboard as tables; below each, what is to be known of its rows and what follows from it."""
    narrow = out.width < _NARROW
    for group in board.groups:
        columns, rows = group.to_table(narrow)
        shown = columns[:-1] if narrow else columns
        table = Table(title=Text(group.title), title_justify="left", box=None, header_style="bold", pad_edge=False)
        table.padding = (0, 1, 0, 0) if narrow else (0, 1)
        for name in shown:
            words = name in (columns[0], columns[-1])
            table.add_column(name, justify="left" if words else "right", overflow="fold", no_wrap=not words)
        remarks = []
        for entry, row in zip(group.rows, rows, strict=True):
            status, *detail = re.split(r"[:;] ", row[-1], maxsplit=1)
            if narrow and row[-1] != "success":
                detail = [row[-1]]
            cells = [_broken(row[0], _NAME_WIDTH) if narrow else row[0], *row[1:-1], status]
            style = "" if entry.kind == "strategy" else "italic"
            table.add_row(*(Text(text, style) for text in cells[: len(shown)]))
            remarks += [(row[0], text) for text in detail]
        out.print(table, soft_wrap=False)
        details = gathered(remarks)
        if narrow:
            details.append("± the larger half of the 95 % interval")
        if "marks" in columns:
            details.append("≈ can't be told apart from the best; ◆ Pareto-optimal; ? not tested")
        if not group.times_compare:
            details.append("(time): of a machine of another speed than that of most rows")
        details += [f"{head}: {text}" for head, text in group.conclusions]
        for text in details:
            out.print(Padding(Text(text, style="dim"), (0, 0, 0, 2)), soft_wrap=False)
        out.print()


def _broken(name: str, width: int) -> str:
    """Return a name on lines of at most `width` characters, broken behind spaces and underscores where it can be."""
    lines = [""]
    for word in re.findall(r"[^ _]*[ _]?", name):
        if lines[-1] and len(lines[-1]) + len(word.rstrip(" ")) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip(" ") for line in lines)


def _seeds(row: Any) -> str:
    seeds = ", ".join(map(str, row.seeds))
    return seeds if row.has_every_seed else f"{seeds} ({seeds_told(row)})"


def print_comparison(comparison: Any) -> None:
    """Print whether two rows differ, and what each costs."""
    rows = (comparison.one, comparison.other)
    out.print(Text.assemble((comparison.verdict, "bold"), "."), soft_wrap=False)
    metric = comparison.one.main_metric
    out.print(Text(f"Difference in {metric}: {comparison.evidence}"), soft_wrap=False)
    out.print()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, name in enumerate(("", *comparison.names, "ratio")):
        table.add_column(Text(name), justify="right" if place else "left", overflow="fold")
    table.add_row(metric, *(f"{row.main.value:.3f} [{row.main.low:.3f}, {row.main.high:.3f}]" for row in rows), "")
    table.add_row("seeds", *(_seeds(row) for row in rows), "")
    for price in comparison.prices:
        ratio = "" if price.ratio is None else f"{price.ratio:.3g}"
        table.add_row(price.name, price.one, price.other, ratio)
    out.print(table, soft_wrap=False)
    for text in comparison.notes:
        out.print(Text(f"Note: {text}.", style="yellow"), soft_wrap=False)
