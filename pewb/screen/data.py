"""A task as a model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from pewb.screen.consoles import out

_BLOCKS = " ▁▂▃▄▅▆▇█"
_BINS = 24
_MOST_CLASSES = 12
_MOST_TOKENS = 120


def print_data(report: Any) -> None:
    """Print what was found out of a task."""
    out.print(
        Text.assemble((report.task, "bold"), f" as {report.backbone} reads it, at most {report.max_tokens} tokens")
    )
    _print_counts(report)
    _print_lengths(report)
    _print_classes(report)
    for told in report.warnings:
        out.print(Text.assemble(("warning ", "yellow"), told))
    for split in report.splits:
        for told in _faults(split):
            out.print(Text.assemble(("warning ", "yellow"), f"{split.name}: {told}"))
    if report.num_augmented:
        out.print(f"  and {report.num_augmented} altered copies of training examples (augment)")
    for number, example in enumerate(report.shown, 1):
        _print_example(number, example)


def _print_counts(report: Any) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("split")
    for name in ("examples", "rows", "shortest", "median", "longest", "cut", "there twice"):
        table.add_column(name, justify="right")
    for split in report.splits:
        lengths = sorted(split.lengths)
        table.add_row(
            split.name,
            str(split.num_examples),
            str(len(lengths)),
            str(lengths[0]),
            str(lengths[len(lengths) // 2]),
            str(lengths[-1]),
            f"{split.num_cut / split.num_examples:.1%}",
            str(len(split.repeated.duplicates)),
        )
    out.print(table)


def _print_lengths(report: Any) -> None:
    """Print how many rows of each length there are, all splits on one scale of lengths."""
    longest = max(max(split.lengths) for split in report.splits)
    width = max(1, -(-longest // _BINS))
    out.print(Text(f"lengths, {width} tokens a column, 1 to {width * -(-longest // width)}", "dim"))
    for split in report.splits:
        counts = [0] * -(-longest // width)
        for length in split.lengths:
            counts[max(0, length - 1) // width] += 1
        most = max(counts)
        bars = "".join(_BLOCKS[-(-count * (len(_BLOCKS) - 1) // most)] for count in counts)
        out.print(f"  {split.name:<11}{bars}", markup=False, highlight=False)


def _print_classes(report: Any) -> None:
    names = list(report.splits[0].classes)
    if not names:
        return
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("class")
    for split in report.splits:
        table.add_column(split.name, justify="right")
    most_first = sorted(names, key=lambda name: -report.splits[0].classes[name])
    totals = [sum(split.classes.values()) or 1 for split in report.splits]
    for name in most_first[:_MOST_CLASSES]:
        shares = [f"{split.classes[name] / total:.1%}" for split, total in zip(report.splits, totals, strict=True)]
        table.add_row(Text(name), *shares)
    out.print(table)
    if len(names) > _MOST_CLASSES:
        out.print(Text(f"  and {len(names) - _MOST_CLASSES} rarer ones", "dim"))


def _faults(split: Any) -> list[str]:
    told = [
        f"{len(places)} of {split.num_examples} examples have a text that is in {other} too; leave them out: --clean FOLDER"
        for other, places in split.repeated.elsewhere.items()
        if places
    ]
    if split.repeated.contradictory:
        told.append(f"{len(split.repeated.contradictory)} examples have the text of another, and an unlike label")
    if split.num_without_target:
        told.append(f"{split.num_without_target} rows have nothing to be learned within max_tokens")
    return told


def _print_example(number: int, example: Any) -> None:
    """Print an example's tokens; those that are learned stand between « and »."""
    line = Text(f"example {number}  ", "bold")
    inside = False
    for token, learned in list(zip(example.tokens, example.learned, strict=True))[:_MOST_TOKENS]:
        if learned != inside:
            line.append("«" if learned else "»", "green")
            inside = learned
        line.append(token.replace("\n", "⏎"), "green" if learned else "")
        line.append("·", "dim")
    line.append("»" if inside else "", "green")
    if len(example.tokens) > _MOST_TOKENS:
        line.append(f" … {len(example.tokens) - _MOST_TOKENS} more", "dim")
    if example.label:
        line.append(f"  → {example.label}", "green")
    out.print(line)


def print_cleaned(cleaned: Any) -> None:
    """Print what was written, what was left out, and the task to put into a recipe."""
    for name, count in cleaned.kept.items():
        told = _listed([f"{number} {why}" for why, number in cleaned.dropped[name].items()])
        out.print(f"  {name}: {count} kept; left out: {told}", markup=False, highlight=False)
    out.print(f"written to {cleaned.folder}; in the recipe, in the place of its task:", markup=False, highlight=False)
    out.print(cleaned.task_table, markup=False, highlight=False)


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts) or "nothing"
