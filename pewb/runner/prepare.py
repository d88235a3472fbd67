"""From a recipe's rows to jobs: names become verified local files, and the data is read once to find its faults early."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pewb.assets import Asset, backbones, cached, digest_file, fetch, fetch_first
from pewb.assets import tasks as catalogue_tasks
from pewb.errors import InputError, nearest
from pewb.recipe import Cell, Limit, LoadedRecipe, Recipe, with_chosen
from pewb.record import AssetRecord, Tuning, identity_of, run_name
from pewb.reporting import Reporter, Step
from pewb.runner.job import ReferenceJob, TrainingJob, now
from pewb.tasks import TaskFamily, decode_task, read_examples
from pewb.tasks.tables import files_of


@dataclass(frozen=True)
class PreparedTask:
    """A task whose files are here and serve."""

    name: str
    table: TaskFamily
    folder: Path
    assets: list[AssetRecord]
    resolved: Any
    """What stands under `task` in a resolved recipe."""
    limit: Limit
    facts: dict[str, Any]
    """Numbers of examples, labels, digest of the test examples."""
    warnings: list[str]
    notices: list[str]
    given: dict[str, Any]
    results: Path

    def reference(self, name: str) -> ReferenceJob:
        """Return the job of the classical predictor `name` on this task."""
        resolved = {"reference": name, "task": self.resolved, "limit": self.limit.model_dump(mode="json")}
        identity = identity_of(resolved, self.assets)
        return ReferenceJob(
            run=run_name("", self.name, name, "none", 0, identity),
            identity=identity,
            reference=name,
            recipe_given=self.given,
            recipe_resolved=resolved,
            assets=self.assets,
            **self.fields,
        )

    @property
    def fields(self) -> dict[str, Any]:
        """What every job on this task has."""
        return {
            "results": self.results,
            "task_name": self.name,
            "task": self.table,
            "task_folder": self.folder,
            "limit": self.limit,
            "warnings": self.warnings,
            "notices": self.notices,
            "started_at": now(),
        }


@dataclass(frozen=True)
class Prepared:
    """One row of a recipe, with its files."""

    cell: Cell
    backbone: Asset
    backbone_notices: list[str]
    task: PreparedTask

    @property
    def seeds(self) -> list[int]:
        """The row's seeds, each once."""
        return list(dict.fromkeys(self.cell.recipe.seeds))

    @property
    def study(self) -> str:
        """The identity of the row's search: the recipe before anything is chosen, on these files."""
        return identity_of(self._resolved(self.cell.recipe, self.seeds[0]), self._assets)

    def run(self, seed: int, tuning: Tuning | None = None) -> TrainingJob:
        """Return the job of this row's run with `seed`, with what the search chose."""
        recipe = with_chosen(self.cell.recipe, tuning.chosen) if tuning else self.cell.recipe
        return self._job(recipe, seed, tuning, is_trial=False)

    def trial(self, values: dict[str, Any], number: int) -> TrainingJob:
        """Return the job of a trial of the row's search: `values` in the place of the recipe's own."""
        recipe = with_chosen(self.cell.recipe, values)
        assert recipe.tune is not None
        epochs = recipe.tune.epochs or recipe.training.epochs
        evaluations = max(recipe.training.evaluations_per_epoch, -(-3 // epochs))  # three, so that pruning has a say
        changes: dict[str, Any] = {"epochs": epochs, "evaluations_per_epoch": evaluations}
        if recipe.training.patience:  # it counts evaluations: the trial is as patient as the run
            changes["patience"] = recipe.training.patience * evaluations // recipe.training.evaluations_per_epoch
        training = recipe.training.model_copy(update=changes)
        job = self._job(recipe.model_copy(update={"training": training}), self.seeds[0], None, is_trial=True)
        return job.model_copy(update={"run": f"trials/{self.study[:16]}-{number}"})

    def _job(self, recipe: Recipe, seed: int, tuning: Tuning | None, is_trial: bool) -> TrainingJob:
        resolved = self._resolved(recipe, seed)
        identity = identity_of(resolved, self._assets)
        short = Path(self.backbone.name).name
        return TrainingJob(
            run=run_name(short, self.task.name, recipe.strategy.kind, str(recipe.quantization), seed, identity),
            identity=identity,
            seed=seed,
            backbone=self.backbone.name,
            backbone_public_name=self.backbone.hub_id or self.backbone.name,
            backbone_folder=self.backbone.folder,
            recipe=recipe,
            tuning=tuning,
            is_trial=is_trial,
            recipe_given=self.task.given,
            recipe_resolved=resolved,
            assets=self._assets,
            **self.task.fields | {"notices": [*self.backbone_notices, *self.task.notices]},
        )

    def _resolved(self, recipe: Recipe, seed: int) -> dict[str, Any]:
        own = {"backbone": self.backbone.name, "seeds": [seed], "task": self.task.resolved}
        return recipe.model_dump(mode="json") | own

    @property
    def _assets(self) -> list[AssetRecord]:
        return [self.backbone.to_record(), *self.task.assets]


def prepare(loaded: LoadedRecipe, results: Path, reporter: Reporter) -> list[Prepared]:
    """Return the recipe's rows after fetching what they need; what several rows share is fetched and read once.

    Raises:
        InputError: an asset can't be had, or the data does not serve.
    """
    backbones_found: dict[str, tuple[Asset, list[str]]] = {}
    tasks_found: dict[str, PreparedTask] = {}
    rows = []
    for cell in loaded.cells:
        recipe = cell.recipe
        name = json.dumps(recipe.backbone)
        if name not in backbones_found:
            backbones_found[name] = _backbone(recipe, reporter)
        task = json.dumps(recipe.model_dump(mode="json", include={"task", "limit"}))
        if task not in tasks_found:
            tasks_found[task] = prepare_task(recipe, loaded.given, results, reporter)
        rows.append(Prepared(cell, *backbones_found[name], tasks_found[task]))
    return rows


def _backbone(recipe: Recipe, reporter: Reporter) -> tuple[Asset, list[str]]:
    notices: list[str] = []
    return fetch_first("backbone", recipe.backbone, _Noting(reporter, notices)), notices


def prepare_task(recipe: Recipe, given: dict[str, Any], results: Path, reporter: Reporter) -> PreparedTask:
    """Return a recipe's task after fetching what it needs.

    Raises:
        InputError: it can't be had, or the data does not serve.
    """
    notices: list[str] = []
    name, table, folder, assets = _task_files(recipe, _Noting(reporter, notices))
    examples = read_examples(table, folder, recipe.limit.model_dump())
    for warning in examples.warnings:
        reporter.notice(warning)
    return PreparedTask(
        name=name,
        table=table,
        folder=folder,
        assets=assets,
        resolved=name if isinstance(recipe.task, list) else table.model_dump(mode="json"),
        limit=recipe.limit,
        facts=examples.facts(),
        warnings=examples.warnings,
        notices=notices,
        given=given,
        results=results,
    )


def _task_files(recipe: Recipe, reporter: Reporter) -> tuple[str, TaskFamily, Path, list[AssetRecord]]:
    """Return the task's name, its keys, the folder its files are in, and what a record keeps of them."""
    if isinstance(recipe.task, list):
        _see_in_catalogue(recipe.task)
        asset: Asset = fetch_first("task", recipe.task, reporter)
        entry = catalogue_tasks()[asset.name]
        task = decode_task(entry.spec)
        if entry.test_from is None:
            return asset.name, task, asset.folder, [asset.to_record()]
        other = fetch("task", entry.test_from, reporter)
        task = task.model_copy(update={"test": str(other.folder / str(task.test))})
        return asset.name, task, asset.folder, [asset.to_record(), other.to_record()]
    task = recipe.task
    task.check_files()
    if task.dataset:
        files = [name for name in (task.data, task.train, task.validation, task.test) if name]
        asset = fetch("task", task.dataset, reporter, files=files)
        return task.dataset.split("@")[0], task, asset.folder, [asset.to_record()]
    return _own_files(task)


def _see_in_catalogue(names: Sequence[str]) -> None:
    """See that tasks are known.

    Raises:
        InputError: one is not.
    """
    for name in names:
        if name not in catalogue_tasks():
            raise InputError(
                f"task: no task '{name}' in the catalogue{nearest(name, list(catalogue_tasks()))}; see pewb list tasks. Your own"
                ' data, or a data set on the hub, is a table: task = { kind = "text_classification", dataset = "org/name", … }'
            )


def _own_files(task: TaskFamily) -> tuple[str, TaskFamily, Path, list[AssetRecord]]:
    keys = [key for key in ("data", "train", "validation", "test") if getattr(task, key)]
    folder = Path()
    digests = {str(path): digest_file(path) for key in keys for path in files_of(folder, getattr(task, key), f"{key}")}
    name = Path(getattr(task, keys[0])).stem
    if name in ("data", "train", "training"):
        name = Path(getattr(task, keys[0])).resolve().parent.name or name
    return name, task, folder, [AssetRecord(name=name, kind="task", source="files", digests=digests)]


class _Noting:
    """A reporter that also keeps the notices, for the record."""

    def __init__(self, reporter: Reporter, notices: list[str]) -> None:
        self._reporter = reporter
        self._notices = notices

    def notice(self, text: str) -> None:
        self._notices.append(text)
        self._reporter.notice(text)

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        self._reporter.progress(stage, done, total, detail)

    def standing(self, steps: Sequence[Step], seconds_left: float | None) -> None:
        self._reporter.standing(steps, seconds_left)


def check(loaded: LoadedRecipe) -> list[str]:
    """Return what can be said of a recipe's names without a network; local files are read.

    Raises:
        InputError: a name is not in the catalogue, or a local file does not serve.
    """
    told: dict[str, None] = {}
    faults: dict[str, None] = {}
    for recipe in (cell.recipe for cell in loaded.cells):
        asks = [*(partial(_told_of_backbone, name) for name in recipe.backbone), partial(_told_of_task, recipe)]
        for ask in asks:
            try:
                told[ask()] = None
            except InputError as error:
                faults[str(error)] = None
    if faults:
        raise InputError("\n".join(faults))
    return list(told)


def _told_of_backbone(name: str) -> str:
    return f"backbone {name}: {_availability('backbone', name)}"


def _told_of_task(recipe: Recipe) -> str:
    if isinstance(recipe.task, list):
        _see_in_catalogue(recipe.task)
        return "\n  ".join(f"task {name}: {_availability('task', name)}" for name in recipe.task)
    if recipe.task.dataset:
        return f"task {recipe.task.dataset}: {_availability('task', recipe.task.dataset)}"
    recipe.task.check_files()
    name, task, folder, _ = _own_files(recipe.task)
    examples = read_examples(task, folder, recipe.limit.model_dump())
    classes = f"; classes {', '.join(examples.labels)}" if examples.labels else ""
    return (
        f"task {name}: {len(examples.train)} training, {len(examples.validation)} validation and"
        f" {len(examples.test)} test examples{classes}"
    )


def _availability(kind: Literal["backbone", "task"], name: str) -> str:
    """Return how a name would be had, without a network."""
    if cached(kind, name):
        return "in the cache"
    if (Path(name) / "config.json").is_file():
        return "a folder"
    entries = backbones() if kind == "backbone" else catalogue_tasks()
    if name not in entries and "/" not in name:
        raise InputError(
            f"{kind}: '{name}' is not in the catalogue{nearest(name, list(entries))}; see pewb list {kind}s"
        )
    return "to be fetched at the first run"
