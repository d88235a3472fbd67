"""A copy of a task's examples in which none is there twice, and none that is trained on is judged by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from pewb.errors import InputError
from pewb.inspection.repeated import repeated
from pewb.recipe import LoadedRecipe
from pewb.reporting import Reporter, Silent
from pewb.runner.prepare import prepare_task
from pewb.tasks import read_examples


@dataclass(frozen=True)
class Cleaned:
    """What was written, and what was not."""

    folder: Path
    kept: dict[str, int]
    """Examples of each split."""
    dropped: dict[str, dict[str, int]]
    """Of each split, how many were left out, and why."""
    task_table: str
    """The task to put into the recipe, in TOML."""


def clean(loaded: LoadedRecipe, folder: Path, reporter: Reporter | None = None) -> Cleaned:
    """Write the examples of a recipe's task into `folder`, all of them, a JSON Lines file for each split.

    What is also in the test split is left out of training and validation, what is also in validation out of training;
    of equal texts with one label the first is kept, and of equal texts with unlike labels none.

    Raises:
        InputError: the task does not serve, the folder holds files already, or nothing would be left of a split.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--clean: {folder} is there already; name a new folder")
    prepared = prepare_task(loaded.cells[0].recipe, loaded.given, Path("results"), reporter or Silent())
    task = prepared.table
    examples = read_examples(task, prepared.folder, {})  # whatever [limit] takes of them
    splits = {"train": examples.train, "validation": examples.validation, "test": examples.test}
    found = repeated(splits)
    dropped: dict[str, dict[str, int]] = {}
    lines: dict[str, list[dict[str, Any]]] = {}
    for name, split in splits.items():
        one = found[name]
        told = {f"also in {other}": len(places) for other, places in one.elsewhere.items()}
        told |= {"same text, unlike labels": len(one.contradictory), "there already": len(one.duplicates)}
        dropped[name] = {why: count for why, count in told.items() if count}
        out = set(one.all)
        lines[name] = [
            task.written(texts, split.labels[place] if split.labels else None, examples.labels)
            for place, texts in enumerate(split.texts)
            if place not in out
        ]
        if not lines[name]:
            raise InputError(f"--clean: nothing would be left of the {name} split: every example of it is there twice")
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in lines.items():
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(content, encoding="utf-8")
    keys = task.written_keys(len(examples.train.texts[0]), examples.labels)
    keys |= {key: value for key in task.kept_keys if (value := getattr(task, key)) is not None}
    files = {name: (folder / f"{name}.jsonl").as_posix() for name in splits}
    table = tomli_w.dumps({"task": keys | files})
    return Cleaned(folder, {name: len(rows) for name, rows in lines.items()}, dropped, table)
