"""Plans: what a training would need, and whether it fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pewb.screen.consoles import out
from pewb.units import format_bytes, format_count

FIT_STYLES = {"yes": "green", "borderline": "yellow", "no": "red"}
"""The colour of each answer to whether it fits."""


def print_plans(plans: Sequence[Any], explain: bool) -> None:
    """Print a line for each plan, or all that is known where there is but one."""
    most = max((one.target.memory_bytes or 0 for one in plans), default=0) or None
    out.print(f"[bold]{escape(plans[0].target.name)}[/], {format_bytes(most)} for a training")
    if len(plans) == 1 and plans[0].estimate:
        for name, text in plan_facts(plans[0]):
            out.print(Text.assemble((f"  {name:<18}", "dim"), text))
    else:
        _print_plan_table(plans, most)
    notices = dict.fromkeys(notice for one in plans for notice in [*one.notices, *_told(one.estimate)])
    for notice in notices:
        out.print(f"  {notice}", markup=False)
    if explain:
        for line in dict.fromkeys(line for one in plans for line in one.assumptions):
            out.print(f"  assumed: {line}", markup=False)


def _told(estimate: Any) -> list[str]:
    return (
        [*estimate.facts.notices, *(f"low confidence: {doubt}" for doubt in estimate.facts.doubts)] if estimate else []
    )


def _print_plan_table(plans: Sequence[Any], most: int | None) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    several = len({one.backbone for one in plans}) > 1
    for name in (["backbone"] if several else []) + ["strategy", "quantization"]:
        table.add_column(name)
    for name in ("trainable", "batch", "peak", "evaluation", "fits"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in plans:
        recipe = one.recipe
        cells = ([one.backbone] if several else []) + [
            f"{recipe.strategy.kind} {recipe.strategy.describe()}".strip(),
            str(recipe.quantization),
        ]
        found = one.estimate
        if found is None:
            table.add_row(*cells, "", "", "", "", f"refused: {one.refusal}")
            continue
        table.add_row(
            *cells,
            format_count(found.facts.parameters.trainable),
            f"{found.micro_batch_size} of {recipe.training.batch_size}",
            format_bytes(found.train.needed_bytes),
            format_bytes(found.evaluation.needed_bytes),
            Text(
                (found.fits or "–") + _own_limit(one.target.memory_bytes, most),
                style=FIT_STYLES.get(found.fits or "", ""),
            ),
        )
    out.print(table, soft_wrap=False)


def _own_limit(limit: int | None, most: int | None) -> str:
    """Return what of the memory a row has, where its recipe gives it less than others."""
    return "" if limit == most else f" ({format_bytes(limit)})"


def plan_facts(plan: Any) -> list[tuple[str, str]]:
    """Return what there is to say of one plan, each with its name."""
    found, training = plan.estimate, plan.recipe.training
    train = found.train
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in train.peak.by_category.items() if size)
    reserved = f", {format_bytes(train.reserved_bytes)} with what the allocator holds" if train.reserved_bytes else ""
    none = "none for certain" if found.fits == "borderline" else "not even one"
    largest = none if found.fits and found.largest_micro_batch is None else found.largest_micro_batch
    facts = [
        ("fits", {None: "no limit is known"}.get(found.fits, found.fits)),
        ("training peak", f"{format_bytes(train.allocated_bytes)} of tensors{reserved}"),
        ("made of", parts),
        ("reached at", " in ".join(part for part in (train.peak.operation, train.peak.module) if part)),
        ("evaluation peak", f"{format_bytes(found.evaluation.needed_bytes)}, {found.evaluation_batch_size} at once"),
        (
            "micro-batch",
            f"{found.micro_batch_size} of a batch of {training.batch_size}; the largest that fits: {largest}",
        ),
        (
            "parameters",
            f"{format_count(found.facts.parameters.trainable)} trained (head {format_count(found.facts.parameters.head)})"
            f" of {format_count(found.facts.parameters.total)}",
        ),
        ("to be shipped", format_bytes(found.facts.shipped_bytes)),
        ("a step", _step_told(found)),
        ("precision", f"{found.facts.precision}, attention: {', '.join(found.facts.kernels) or 'no fused kernel'}"),
        ("confidence", found.confidence),
    ]
    return [(name, str(text)) for name, text in facts]


def _step_told(found: Any) -> str:
    operations = f"{found.step_flops / 1e12:.3g} Tflop"
    if found.step_seconds_at_least is None:
        return f"{operations}; how long is not known"
    return f"{operations}, at least {found.step_seconds_at_least:.2g} s at the device's quoted peak rate"
