"""Lists: what there is to choose from, what can be combined, the rows of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pewb.screen.consoles import out
from pewb.units import format_bytes, format_count


def print_entry(row: dict[str, Any]) -> None:
    """Print one entry of a list: its name and description, and its facts indented below."""
    facts = dict(row)
    title = Text.assemble((facts.pop("name"), "bold"), "  ", facts.pop("description"))
    out.print(title, soft_wrap=not out.is_terminal)
    text = "; ".join(_fact(name, value) for name, value in facts.items() if value != [])
    out.print(Padding(Text(text, style="dim"), (0, 0, 0, 4)), soft_wrap=False)


def _fact(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return f"{name.removesuffix('_bytes').replace('_', ' ')} {format_bytes(value)}"
    return f"{name.replace('_', ' ')} {_cell(value)}"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return format_count(value)
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(value) or "–" if isinstance(value, list) else str(value)


def print_matrix(combinations: list[Any], device: str) -> None:
    """Print which combinations of method, architecture and quantization can be, with numbered reasons below."""
    numbers: dict[str, int] = {}
    rows: dict[str, dict[str, list[str]]] = {}
    for one in combinations:
        word = "yes" if one.refusal is None else str(numbers.setdefault(one.refusal, len(numbers) + 1))
        rows.setdefault(str(one.method), {}).setdefault(one.architecture, []).append(word)
    storages = list(dict.fromkeys(one.quantization for one in combinations))
    families = list(dict.fromkeys(one.architecture for one in combinations))
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", min_width=max(len(word) for method in rows for word in method.split()))
    for name in families:
        table.add_column(name, no_wrap=True)
    for method, cells in rows.items():
        table.add_row(method, *(_one_or_each(cells[family]) for family in families))
    out.print(table, soft_wrap=False)
    refused = sum(one.refusal is not None for one in combinations)
    out.print(
        f"\nA cell is for {', '.join(storages)}: one answer where they agree, else one for each. A number is a reason below."
    )
    working = len(combinations) - refused
    out.print(f"{len(combinations)} combinations on this device ({device}): {working} work, {refused} are refused:")
    for reason, number in numbers.items():
        out.print(f"  ({number}) {reason}", markup=False)


def _one_or_each(words: list[str]) -> str:
    return words[0] if len(set(words)) == 1 else "/".join(words)


def print_cells(cells: Sequence[Any]) -> None:
    """Print one line for each row of a recipe: what would be run, or why it can't be."""
    from pewb.recipe import distinctions

    for cell, distinction in zip(cells, distinctions([cell.recipe for cell in cells]), strict=True):
        recipe = cell.recipe
        seeds = f"seed{'s' * (len(recipe.seeds) > 1)} {', '.join(map(str, recipe.seeds))}"
        rate = f"learning rate {recipe.training.learning_rate:g}"
        tuned = f"{recipe.tune.trials} trials around " if recipe.tune else ""
        text = f"  {recipe.strategy.kind} {recipe.strategy.describe()}, quantization {recipe.quantization}, {tuned}{rate}, {seeds}"
        text += f", {distinction}" if distinction else ""
        out.print(Text.assemble(text, (f"  refused: {cell.refusal}" if cell.refusal else "", "yellow")))
