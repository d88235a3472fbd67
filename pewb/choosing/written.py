"""A choice as a recipe that is ready to be run."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import tomli_w

from pewb.choosing.answer import Entry
from pewb.errors import InputError
from pewb.recipe import Recipe, with_chosen


def chosen_recipe(entry: Entry) -> Recipe:
    """Return the recipe of a choice: with its setting, and with what a search has chosen for it before."""
    recipe, support, setting = entry.candidate.cell.recipe, entry.candidate.support, entry.setting
    assert setting is not None
    changes: dict[str, Any] = {
        "training.micro_batch_size": setting.micro_batch_size,
        "training.gradient_checkpointing": setting.gradient_checkpointing,
    }
    if support and support.chosen:
        changes |= dict(support.chosen)
        recipe = recipe.model_copy(update={"tune": None})
    return with_chosen(recipe, changes)


def write_recipe(entry: Entry, reason: str, path: Path) -> Path:
    """Write the recipe of a choice to `path`, under a comment that says why, and return the path.

    Raises:
        InputError: the file is already there, or can't be written.
    """
    content = _without_nulls(chosen_recipe(entry).model_dump(mode="json"))
    for name in ("backbone", "task"):
        if isinstance(content[name], list) and len(content[name]) == 1:
            [content[name]] = content[name]
    comment = "".join(f"# {line}\n" for line in textwrap.wrap(f"Written by pewb choose. {reason}.", 118))
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(comment + "\n" + tomli_w.dumps(content))
    except FileExistsError:
        raise InputError(f"--write {path}: is already there; name another file, or remove it") from None
    except OSError as error:
        raise InputError(f"--write {path}: can't be written ({error.strerror}); name another file") from None
    return path


def _without_nulls(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table without what is left out, for which TOML has no word, and without tables that hold nothing."""
    kept = {key: _without_nulls(value) if isinstance(value, dict) else value for key, value in table.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}
