"""A choice and why: the ranking on one memory size, the ladder over several, what was measured elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pewb.leaderboard.cells import seeds_told
from pewb.screen.consoles import gathered, out
from pewb.screen.plans import FIT_STYLES
from pewb.units import format_bytes

_FEW_FOREIGN = 4


def print_choice(chosen: Any) -> None:
    """Print what fits and what was measured of it, the choice and why; of several memory sizes, the ladder."""
    top = chosen.ranking
    if len(chosen.rankings) > 1:
        _print_ladder(chosen.rankings)
    else:
        out.print(f"[bold]{escape(top.title)}[/], {format_bytes(top.limit_bytes)} for a training")
        _print_ranking(top)
        out.print()
        head = "take" if top.choice else "no choice"
        out.print(Text.assemble((f"{head}  ", "bold"), top.reason), soft_wrap=False)
    _print_foreign(chosen)
    for notice in chosen.notices:
        out.print(f"  {notice}", markup=False)


def _print_foreign(chosen: Any) -> None:
    """Print what was measured elsewhere: where rows have no evidence of their own the first few, else how many."""
    elsewhere = chosen.elsewhere
    shown = elsewhere[:_FEW_FOREIGN] if any(not one.candidate.support for one in chosen.ranking.entries) else []
    if elsewhere:
        out.print(Text("\nMeasured elsewhere, and not ranked:" if shown else "", style="dim"))
    for one in shown:
        value = f"{one.row.main.value:.3f}" if one.row.main else "–"
        because = [
            text.partition(":")[0] if text.startswith(("another backbone", "another task")) else text
            for text in one.because
        ]
        text = f"{value}  {one.row.label}, {one.row.backbone}, {one.row.task} ({'; '.join(because)})"
        out.print(Padding(Text(text, style="dim"), (0, 0, 0, 2)), soft_wrap=False)
    if rest := len(elsewhere) - len(shown):
        told = f"  and {rest} more" if shown else f"{rest} rows were measured with other settings, and are not ranked"
        out.print(Text(f"{told}: --json", style="dim"))


def _print_ranking(ranking: Any) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("row", overflow="fold")
    piloted = any(entry.candidate.pilot for entry in ranking.entries)
    for name in ("fits", "micro-batch", "needs", "room", "trainable", "pilot" if piloted else "measured"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    remarks = []
    for entry in ranking.entries:
        needs, setting = entry.candidate.needs, entry.setting
        title = Text(entry.candidate.name, style="bold" if entry is ranking.choice else "")
        remarks += [(entry.candidate.name, text) for text in _remarks(entry, piloted, ranking.limit_bytes)]
        if setting is None:
            table.add_row(title, Text("refused", "yellow"))
            continue
        size = f"{setting.micro_batch_size} of {entry.candidate.cell.recipe.training.batch_size}"
        room = setting.room_bytes
        table.add_row(
            title,
            Text(setting.fits, style=FIT_STYLES[setting.fits]),
            size + (" gc" if setting.gradient_checkpointing else ""),
            format_bytes(setting.train_bytes),
            format_bytes(room) if room >= 0 else f"−{format_bytes(-room)}",
            _short_count(needs.parameters.trainable) if needs.parameters else "–",
            _measured(entry, piloted),
            _mark(entry, piloted),
        )
    out.print(table, soft_wrap=False)
    details = gathered(remarks)
    if any(entry.setting and entry.setting.gradient_checkpointing for entry in ranking.entries):
        details.append("gc: with gradient checkpointing")
    if any(entry.standing and entry.standing.place == "alike" for entry in ranking.entries):
        details.append("≈: can't be told apart from the best that fits")
    for text in details:
        out.print(Padding(Text(text, style="dim"), (0, 0, 0, 2)), soft_wrap=False)


def _short_count(count: int) -> str:
    """Return a count in three digits: "941", "222k", "1.70M", "3.21B"."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:#.3g}".rstrip(".") + unit
    return str(count)


def _measured(entry: Any, piloted: bool) -> str:
    if piloted:
        return f"{entry.candidate.pilot.value:.3f}" if entry.candidate.pilot else "–"
    return "–" if entry.value is None else f"{entry.value:.3f}"


def _mark(entry: Any, piloted: bool) -> str:
    """Return how a row stands, in a word."""
    if entry.excluded:
        return "over budget"
    if piloted:
        return f"round {entry.candidate.pilot.round}" if entry.candidate.pilot else ""
    if entry.standing is None:
        return ""
    return str({"best": "best", "alike": "≈", "behind": "behind", "not tested": "?"}[entry.standing.place])


def _remarks(entry: Any, piloted: bool, limit_bytes: int) -> Iterator[str]:
    """Yield what there is to say of a row below the table."""
    support = entry.candidate.support
    if entry.candidate.needs.refusal:
        yield f"refused: {entry.candidate.needs.refusal}"
    if entry.excluded:
        yield entry.excluded
    if entry.setting and entry.setting.limit_bytes != limit_bytes:
        yield f"within {format_bytes(entry.setting.limit_bytes)}, which its recipe gives it"
    if support and support.differs and not piloted:
        yield f"measured with {', '.join(support.differs)}"
    if support and not piloted:
        told = [] if support.row.has_every_seed else [seeds_told(support.row)]
        yield from (f"when measured: {text}" for text in [*told, *support.row.warnings])
    for doubt in entry.candidate.needs.doubts:
        yield f"low confidence: {doubt}"


def _print_ladder(rankings: Sequence[Any]) -> None:
    """Print the choice at each memory size; equal neighbours are one line."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name, side in (
        ("memory", "right"),
        ("choice", "left"),
        ("measured", "right"),
        ("needs", "right"),
        ("", "left"),
    ):
        table.add_column(name, justify=side, overflow="fold")  # type: ignore[arg-type]
    steps: list[list[Any]] = []
    seen: set[str] = set()
    for ranking in rankings:
        same = steps and _step(steps[-1][-1]) == _step(ranking)
        if same:
            steps[-1].append(ranking)
        else:
            steps.append([ranking])
    for members in steps:
        first, last = members[0], members[-1]
        sizes = " to ".join(dict.fromkeys(_gib(one.memory_bytes) for one in (first, last)))
        choice = first.choice
        if choice is None:
            fitting = [entry.candidate.name for entry in _free(first)]
            new = [name for name in fitting if name not in seen]
            told = f"no evidence; fit{' besides' if seen else ''}: {', '.join(new)}" if new else first.reason
            seen |= set(fitting)
            table.add_row(sizes, "–", "–", "", told)
            continue
        table.add_row(
            sizes,
            choice.told,
            _measured(choice, bool(choice.candidate.pilot)),
            format_bytes(choice.setting.train_bytes),
        )
    out.print(table, soft_wrap=False)
    chosen = [(ranking.choice, ranking.limit_bytes) for ranking in rankings if ranking.choice]
    remarks = [
        (entry.candidate.name, text)
        for entry, limit in chosen
        for text in _remarks(entry, bool(entry.candidate.pilot), limit)
    ]
    for text in gathered(dict.fromkeys(remarks)):
        out.print(Padding(Text(text, style="dim"), (0, 0, 0, 2)), soft_wrap=False)
    if rankings[-1].choice:
        out.print(Text(f"\nAt {_gib(rankings[-1].memory_bytes)}: {rankings[-1].reason}"), soft_wrap=False)
    elif seen:
        out.print("\nRun the recipe, or give --probe MINUTES, to choose.")


def _free(ranking: Any) -> list[Any]:
    """Return the entries that surely fit, and break no other budget."""
    return [entry for entry in ranking.entries if entry.fits == "yes" and not entry.excluded]


def _step(ranking: Any) -> Any:
    """Return what makes two steps of the ladder the same on the screen."""
    if ranking.choice is None:
        return [entry.candidate.name for entry in _free(ranking)], ranking.reason[:10]
    return ranking.choice.told


def _gib(size: int) -> str:
    return f"{size / 2**30:g} GiB" if size % 2**30 == 0 else format_bytes(size)
