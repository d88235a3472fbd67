"""From a recipe to jobs: names become verified local files, and the data is read once to find its faults early."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pewb.assets import Asset, backbones, cached, digest_file, fetch, fetch_first
from pewb.assets import tasks as catalogue_tasks
from pewb.errors import InputError, nearest
from pewb.recipe import LoadedRecipe, Recipe, TaskTable
from pewb.record import AssetRecord, identity_of, run_name
from pewb.reporting import Reporter
from pewb.runner.job import Job, now
from pewb.tasks import read_examples
from pewb.tasks.tables import files_of


def prepare(loaded: LoadedRecipe, results: Path, reporter: Reporter) -> list[Job]:
    """Return the recipe's jobs, one for each seed, after fetching what they need.

    Raises:
        InputError: an asset can't be had, or the data does not serve.
    """
    recipe = loaded.recipe
    notices: list[str] = []
    backbone = fetch_first("backbone", recipe.backbone, _Noting(reporter, notices))
    task_name, task, folder, asset = _task(recipe, _Noting(reporter, notices))
    examples = read_examples(task, folder, recipe.limit.model_dump())
    for warning in examples.warnings:
        reporter.notice(warning)
    assets = [backbone.to_record(), asset]
    jobs: list[Job] = []
    for seed in dict.fromkeys(recipe.seeds):
        resolved = recipe.model_dump(mode="json") | {"backbone": backbone.name, "seeds": [seed]}
        resolved["task"] = task_name if isinstance(recipe.task, list) else task.model_dump(mode="json")
        identity = identity_of(resolved, assets)
        name = run_name(
            Path(backbone.name).name, task_name, recipe.strategy.kind, str(recipe.quantization), seed, identity
        )
        jobs.append(
            Job(
                run=name,
                identity=identity,
                results=results,
                seed=seed,
                backbone=backbone.name,
                backbone_public_name=backbone.hub_id or backbone.name,
                backbone_folder=backbone.folder,
                task_name=task_name,
                task=task,
                task_folder=folder,
                recipe=recipe,
                recipe_given=loaded.given,
                recipe_resolved=resolved,
                assets=assets,
                warnings=examples.warnings,
                notices=notices,
                started_at=now(),
            )
        )
    return jobs


def _task(recipe: Recipe, reporter: Reporter) -> tuple[str, TaskTable, Path, AssetRecord]:
    """Return the task's name, its keys, the folder its files are in, and what a record keeps of them."""
    if isinstance(recipe.task, list):
        for name in recipe.task:
            if name not in catalogue_tasks():
                raise InputError(
                    f"task: no task '{name}' in the catalogue{nearest(name, list(catalogue_tasks()))}; see pewb list tasks. Your own"
                    ' data, or a data set on the hub, is a table: task = { kind = "text_classification", dataset = "org/name", … }'
                )
        asset: Asset = fetch_first("task", recipe.task, reporter)
        task = TaskTable.model_validate(catalogue_tasks()[asset.name].spec)
        return asset.name, task, asset.folder, asset.to_record()
    task = recipe.task
    if task.dataset:
        files = [name for name in (task.data, task.train, task.validation, task.test) if name]
        asset = fetch("task", task.dataset, reporter, files=files)
        return task.dataset.split("@")[0], task, asset.folder, asset.to_record()
    return _own_files(task)


def _own_files(task: TaskTable) -> tuple[str, TaskTable, Path, AssetRecord]:
    keys = [key for key in ("data", "train", "validation", "test") if getattr(task, key)]
    folder = Path()
    digests = {str(path): digest_file(path) for key in keys for path in files_of(folder, getattr(task, key), f"{key}")}
    name = Path(getattr(task, keys[0])).stem
    if name in ("data", "train", "training"):
        name = Path(getattr(task, keys[0])).resolve().parent.name or name
    return name, task, folder, AssetRecord(name=name, kind="task", source="files", digests=digests)


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


def check(recipe: Recipe) -> list[str]:
    """Return what can be said of a recipe without a network; local files are read.

    Raises:
        InputError: a name is not in the catalogue, or a local file does not serve.
    """
    told = [f"backbone {name}: {_availability('backbone', name)}" for name in recipe.backbone]
    if isinstance(recipe.task, list):
        told += [f"task {name}: {_availability('task', name)}" for name in recipe.task]
    if not isinstance(recipe.task, list) and not recipe.task.dataset:
        name, task, folder, _ = _own_files(recipe.task)
        facts = read_examples(task, folder, recipe.limit.model_dump()).facts()
        told.append(
            f"task {name}: {facts['train_examples']} training, {facts['validation_examples']} validation and"
            f" {facts['test_examples']} test examples; classes {', '.join(facts['labels'])}"
        )
    return told


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
