"""Choosing: what fits a budget, ranked by what was measured, and the cheapest row that can't be told apart from the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pewb.choosing.answer import Budgets, Candidate, Chosen, Entry, Ranking
from pewb.choosing.choice import ranked
from pewb.choosing.evidence import read_evidence
from pewb.choosing.names import names_of
from pewb.choosing.needs import needs_of
from pewb.choosing.targets import LADDER, targets_of
from pewb.errors import InputError, RefusedError
from pewb.planner.target import Target
from pewb.quiet import quieten_libraries
from pewb.recipe import LoadedRecipe
from pewb.reporting import Reporter, Silent

if TYPE_CHECKING:
    from pewb.choosing.probe import Probe

__all__ = ["LADDER", "Budgets", "Chosen", "Entry", "Ranking", "choose", "targets_of"]


def choose(
    loaded: LoadedRecipe,
    targets: Sequence[Target],
    reporter: Reporter | None = None,
    *,
    results: str | Path | None = None,
    evidence_files: Sequence[str | Path] = (),
    with_shipped: bool = True,
    budgets: Budgets | None = None,
    probe: Probe | None = None,
) -> Chosen:
    """Return which row of a recipe to take on each target, and why.

    Args:
        loaded: the recipe; its rows compete.
        targets: of one kind, with different memory: see `targets_of`.
        reporter: told of what is going on.
        results: the folder of the user's own records; None: there are none.
        evidence_files: results in PEFT's schema.
        with_shipped: whether the records that pewb is shipped with count.
        budgets: what a row may cost besides memory.
        probe: gets evidence by short pilots among the rows that fit the largest target.

    Raises:
        InputError: the recipe or a file does not serve.
        RefusedError: the recipe's only row can't be.
    """
    reporter = reporter or Silent()
    limits_besides = replace(budgets or Budgets(), unmeasured_too=probe is not None)
    quieten_libraries()
    for recipe in [cell.recipe for cell in loaded.cells] if probe else []:
        if not isinstance(recipe.task, list):
            recipe.task.check_files()
    evidence = read_evidence(
        None if results is None else Path(results), [Path(name) for name in evidence_files], with_shipped
    )
    targets = sorted(targets, key=lambda target: _limit(target))
    limits = [_limit(target) for target in targets]
    simulated_on = replace(targets[0], memory_bytes=None)
    needs = []
    for number, cell in enumerate(loaded.cells):
        reporter.progress(
            "planning", number, len(loaded.cells), f"{cell.recipe.strategy.kind} {cell.recipe.backbone[0]}"
        )
        needs.append(needs_of(cell, simulated_on, sorted(set(limits)), reporter))
    reporter.progress("planning", len(needs), len(needs))
    if len(needs) == 1 and needs[0].refusal:
        raise RefusedError(needs[0].refusal)
    backbones = [one.backbone for one in needs]
    supports, elsewhere = evidence.supports(loaded.cells, backbones)
    names = names_of(loaded.cells, backbones)
    candidates = [Candidate(*parts) for parts in zip(loaded.cells, names, needs, supports, strict=True)]

    def rank(candidates: Sequence[Candidate]) -> list[Ranking]:
        return [
            ranked(candidates, _title(target), _memory(target), limit, evidence, limits_besides)
            for target, limit in zip(targets, limits, strict=True)
        ]

    notices = list(dict.fromkeys(notice for one in needs for notice in one.notices))
    if probe is not None:
        pilots = probe(loaded, rank(candidates)[-1], reporter)
        candidates = [replace(one, pilot=pilots.get(one.name)) for one in candidates]
        notices += [*probe.notices, *_not_timed(candidates, limits_besides)]
    return Chosen(rank(candidates), elsewhere, notices)


def _not_timed(candidates: Sequence[Candidate], budgets: Budgets) -> list[str]:
    names = [
        one.name
        for one in candidates
        if one.pilot and not (one.support and one.support.row.time.train_seconds is not None)
    ]
    if budgets.max_train_seconds is None or not names:
        return []
    return [f"--max-train-time does not count for {', '.join(names)}: how long a whole training takes was not measured"]


def _limit(target: Target) -> int:
    if target.memory_bytes is None:
        raise InputError("how much memory there is must be known; give --gpu-memory, such as 8GiB")
    return target.memory_bytes


def _memory(target: Target) -> int:
    return target.gpu.memory_bytes if target.gpu else _limit(target)


def _title(target: Target) -> str:
    return target.name
