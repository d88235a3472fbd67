"""Plans: every row of a recipe, estimated on a target, before anything is trained."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pewb.assets import architecture
from pewb.assets import tasks as catalogue_tasks
from pewb.errors import InputError, RefusedError, UnavailableError, nearest
from pewb.planner.assumptions import assumptions
from pewb.planner.estimate import Estimate, estimate
from pewb.planner.simulation import Question
from pewb.planner.target import Target, limited
from pewb.quiet import quieten_libraries
from pewb.recipe import Cell, LoadedRecipe, Recipe
from pewb.reporting import Reporter, Silent
from pewb.tasks import TaskFamily, decode_task, read_examples

_ASSUMED_CLASSES = ("first", "second")


@dataclass(frozen=True)
class Plan:
    """One row of a recipe, and what it would need; or why it can't be."""

    recipe: Recipe
    backbone: str
    target: Target
    estimate: Estimate | None
    refusal: str | None
    notices: list[str]
    seconds: float
    """That the simulation took."""

    @property
    def assumptions(self) -> list[str]:
        """What the simulation takes for granted, in words."""
        return assumptions(self.recipe, self.target, self.estimate)

    def to_json(self) -> dict[str, Any]:
        """Return what `pewb plan --json` prints of the row."""
        found = self.estimate.to_json() if self.estimate else {"estimate": None, "fits": None}
        return {
            "backbone": self.backbone,
            "strategy": self.recipe.strategy.kind,
            "settings": self.recipe.strategy.describe(),
            "quantization": str(self.recipe.quantization),
            "gradient_checkpointing": self.recipe.training.gradient_checkpointing,
            "batch_size": self.recipe.training.batch_size,
            "device": self.target.name,
            "memory_bytes": self.target.memory_bytes,
            "refusal": self.refusal,
            **found,
            "notices": [*self.notices, *(self.estimate.facts.notices if self.estimate else [])],
            "seconds": round(self.seconds, 3),
        }


def plan(loaded: LoadedRecipe, target: Target, reporter: Reporter | None = None) -> list[Plan]:
    """Return a plan for each row of a recipe. No weights, data or tokenizer are needed, only the architecture.

    Raises:
        InputError: the backbone is unknown or the recipe's only row does not serve.
        RefusedError: the recipe's only row can't be.
    """
    reporter = reporter or Silent()
    quieten_libraries()
    plans = []
    for number, cell in enumerate(loaded.cells):
        reporter.progress("planning", number, len(loaded.cells), cell.recipe.strategy.kind)
        plans.append(plan_cell(cell, target, reporter, alone=len(loaded.cells) == 1))
    reporter.progress("planning", len(plans), len(plans))
    return plans


def plan_cell(cell: Cell, target: Target, reporter: Reporter, alone: bool = False) -> Plan:
    """Return the plan of one row; `alone`, what it can't be is the user's to mend."""
    recipe = cell.recipe
    target = limited(target, recipe.device)
    notices: list[str] = []
    started = time.perf_counter()
    if target.kind == "cuda" and (told := allocator_notice()):
        notices.append(told)
    found, refusal = None, cell.refusal
    question = question_of(recipe, reporter, notices)
    if not refusal:
        try:
            found = estimate(question, target)
        except RefusedError as error:
            if alone:
                raise
            refusal = str(error)
    return Plan(recipe, question.backbone, target, found, refusal, notices, time.perf_counter() - started)


def _architecture(names: Sequence[str], reporter: Reporter, notices: list[str]) -> tuple[str, dict[str, Any]]:
    """Return the first of `names` whose architecture can be had, and that."""
    for name in names[:-1]:
        try:
            return name, architecture(name, reporter)
        except UnavailableError as error:
            notices.append(str(error))
    return names[-1], architecture(names[-1], reporter)


def _task(recipe: Recipe, notices: list[str]) -> tuple[TaskFamily, Sequence[str]]:
    """Return the recipe's task (of several, the first) and its classes, which are read off its files if it has any."""
    if isinstance(recipe.task, list):
        name = recipe.task[0]
        entry = catalogue_tasks().get(name)
        if entry is None:
            raise InputError(
                f"task: no task '{name}' in the catalogue{nearest(name, list(catalogue_tasks()))}; see pewb list tasks"
            )
        task = decode_task(entry.spec)
        known = task.assumed_labels()
        return task, [str(number) for number in range(entry.num_classes or 2)] if known is None else known
    task = recipe.task
    if (labels := task.assumed_labels()) is not None:
        return task, labels
    if task.missing_files() is None and not task.dataset:
        return task, read_examples(task, Path(), recipe.limit.model_dump()).labels
    notices.append("task: how many classes there are is not known; two are assumed (name them as task.labels)")
    return task, _ASSUMED_CLASSES


def allocator_notice() -> str | None:
    """Return that the user has given PyTorch's allocator another setting than runs plan with, if so."""
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        value = os.environ.get(name)
        if value and "expandable_segments:true" not in value.lower():
            return f"{name}={value} is set: what is reserved is planned for expandable_segments:True, and may be more"
    return None


def question_of(recipe: Recipe, reporter: Reporter, notices: list[str]) -> Question:
    """Return what is to be simulated of a recipe; what had to be taken for granted is added to `notices`.

    Raises:
        InputError: the backbone or the task is unknown.
    """
    backbone, config = _architecture(recipe.backbone, reporter, notices)
    task, labels = _task(recipe, notices)
    return Question(backbone, config, task, labels, recipe.strategy, recipe.quantization, recipe.training)
