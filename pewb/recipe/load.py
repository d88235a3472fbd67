"""Recipes: TOML in, checked rows out. Every fault is told at once, with its key and the way out."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from pewb.assets import tasks as catalogue_tasks
from pewb.errors import InputError, RefusedError, nearest
from pewb.recipe.faults import explained
from pewb.recipe.layers import cells, with_values
from pewb.recipe.sections import AnyStrategy, Quantization, Recipe, Training, kind_table
from pewb.record import read_record
from pewb.strategies import Strategy, strategies
from pewb.strategies.strategy import QUANTIZATIONS
from pewb.tasks import decode_task


@dataclass(frozen=True)
class Cell:
    """One row to be, over its seeds: a recipe without alternatives, and the reason if it can't be."""

    recipe: Recipe
    refusal: str | None = None


@dataclass(frozen=True)
class LoadedRecipe:
    """What a recipe asks for, and what it was read from."""

    cells: list[Cell]
    given: dict[str, Any]
    """The file's content and the overrides, as the user gave them."""

    @property
    def recipe(self) -> Recipe:
        """The one recipe, where nothing is compared."""
        [cell] = self.cells
        return cell.recipe


def load_recipe(path: str | Path, overrides: Sequence[str] = (), only: Sequence[str] = ()) -> LoadedRecipe:
    """Read the recipe in `path`, with `section.key=value` overrides laid over it.

    The record of a run is a recipe too: the one that this run resolved, with what a search had chosen for it.

    Args:
        path: of a TOML file, or of a record (`.json`).
        overrides: `section.key=value` texts.
        only: strategies; of a comparison's rows, those of other strategies are left out.

    Raises:
        InputError: the file is missing or no TOML, or the recipe has faults (all of them are told).
        RefusedError: its keys are right, but its only row can't be.
    """
    path = Path(path)
    content = _resolved_in(path) if path.suffix == ".json" else _read_toml(path)
    given = {"file": path.name, "content": content, "set": list(overrides)}
    if only:
        given["only"] = list(only)
    try:
        rows = cells(content, overrides)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    parsed = _each_once(_parsed(rows, str(path)))
    _refuse_unequal_searches(parsed, path)
    if len(rows) == 1 and "compare" not in content and parsed[0].refusal:
        raise RefusedError(f"{path}: {parsed[0].refusal}")
    return LoadedRecipe(_chosen(parsed, only), given)


def parse_recipe(content: dict[str, Any], origin: str = "recipe") -> Recipe:
    """Return the one recipe in `content`, its learning rate resolved.

    Raises:
        InputError: the recipe has faults; `origin` says where.
        RefusedError: its keys are right, but the combination can't be.
    """
    [cell] = _parsed([("", content)], origin)
    if cell.refusal:
        raise RefusedError("\n".join(f"{origin}: {line}" for line in cell.refusal.splitlines()))
    return cell.recipe


def with_chosen(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """Return `recipe` with the dotted keys of `values` set, as a search proposes them.

    Raises:
        InputError: a value is not allowed.
    """
    return parse_recipe(with_values(recipe.model_dump(mode="json"), values), "tune.search")


def _each_once(parsed: list[Cell]) -> list[Cell]:
    """Return the rows without those that ask for what another asks for in other words."""
    return [cell for place, cell in enumerate(parsed) if cell not in parsed[:place]]


def _refuse_unequal_searches(parsed: list[Cell], path: Path) -> None:
    """Refuse a comparison of rows that are searched with different effort: it would compare the efforts."""
    tunes = [cell.recipe.tune for cell in parsed]
    efforts = {str(tune and tune.model_dump(exclude={"search"})) for tune in tunes}
    if len(efforts) > 1:
        raise InputError(
            f"{path}: compare: rows are searched with different effort, which is no fair comparison; write [tune] once, at"
            " the top (a row's own tune may only name what else to search: tune.search)"
        )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe{_nearest_recipe(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None


def _nearest_recipe(path: Path) -> str:
    folders = [folder for folder in (path.parent, Path("recipes")) if folder.is_dir()]
    return nearest(str(path), [str(other) for folder in folders for other in folder.glob("*.toml")])


def _resolved_in(path: Path) -> dict[str, Any]:
    """Return the recipe that the run of the record `path` resolved; what a search chose stands in it as given."""
    if not path.is_file():
        raise InputError(f"{path}: no such record; see the folder results/")
    record = read_record(path)
    if record.is_reference:
        raise InputError(
            f"{path} is of a reference, which every run of its task brings along; name a strategy's record"
        )
    return {key: value for key, value in record.recipe_resolved.items() if key != "tune"}


def _parsed(rows: Sequence[tuple[str, dict[str, Any]]], origin: str) -> list[Cell]:
    """Return each row's content as a cell; faults that all rows have are told once."""
    recipes, faults, refusals = zip(*(_one(content) for _, content in rows), strict=True)
    if any(faults):
        if len(rows) == 1:
            faults = ([*faults[0], *refusals[0]],)
        told: dict[str, None] = {}
        for (name, _), lines in zip(rows, faults, strict=True):
            for line in lines:
                shared = all(line in others for others in faults)
                told[f"{origin}: {line}" if shared or not name else f"{origin}, {name}: {line}"] = None
        raise InputError("\n".join(told))
    return [Cell(recipe, "\n".join(lines) or None) for recipe, lines in zip(recipes, refusals, strict=True)]


def _one(content: dict[str, Any]) -> tuple[Any, list[str], list[str]]:
    """Return the recipe in `content` (None if it has faults), its faults, and why its parts do not go together."""
    refusals = _impossible(
        _valid(AnyStrategy, content.get("strategy")),
        _valid(Annotated[Quantization, BeforeValidator(kind_table)], content.get("quantization", "none")),
        _valid(Training, content.get("training", {})),
    )
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        return None, [explained(fault) for fault in error.errors(include_url=False)], refusals
    refusals += _not_of_the_task(recipe)
    if recipe.training.learning_rate is None:
        rate = recipe.strategy.default_learning_rate
        training = recipe.training.model_copy(update={"learning_rate": rate})
        recipe = recipe.model_copy(update={"training": training})
    faults, impossible = _faults_of_search(recipe)
    return recipe, faults, refusals + impossible


def _faults_of_search(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Return the faults of the values that `[tune]` would choose from, and why some do not go with the rest of the recipe."""
    faults, refusals = [], []
    own = _impossible(recipe.strategy, recipe.quantization, recipe.training) + _not_of_the_task(recipe)
    for key, values in (recipe.tune.search if recipe.tune else {}).items():
        for value in values:
            try:
                content = with_values(recipe.model_dump(mode="json") | {"tune": None}, {key: value})
                one = Recipe.model_validate(content)
            except ValidationError as error:
                faults += [f"tune.search: {explained(fault)}" for fault in error.errors(include_url=False)]
                continue
            drawn = _impossible(one.strategy, one.quantization, one.training) + _not_of_the_task(one)
            refusals += [f"tune.search: {text}" for text in drawn if text not in own]
    return faults, list(dict.fromkeys(refusals))


def _chosen(parsed: list[Cell], only: Sequence[str]) -> list[Cell]:
    kinds = list(dict.fromkeys(cell.recipe.strategy.kind for cell in parsed))
    for name in only:
        if name not in kinds:
            raise InputError(f"--only {name}: not in this recipe{nearest(name, kinds)}; it has {', '.join(kinds)}")
    return [cell for cell in parsed if not only or cell.recipe.strategy.kind in only]


def _valid(kind: Any, value: Any) -> Any:
    """Return `value` as the type `kind`, or None if it is not one (that fault is told elsewhere)."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return None


def _not_of_the_task(recipe: Recipe) -> list[str]:
    """Return which options of the training mean nothing for the recipe's task, or for one of those that it names."""
    training = recipe.training
    asked = [name for name in _WHY_NOT if getattr(training, name)]
    if not asked:
        return []
    named = recipe.task if isinstance(recipe.task, list) else []
    known = [decode_task(catalogue_tasks()[name].spec) for name in named if name in catalogue_tasks()]
    tasks = known if isinstance(recipe.task, list) else [recipe.task]
    reasons = [
        f"training.{name}: {_WHY_NOT[name].format(kind=task.kind)}; leave it out"
        for name in asked
        for task in tasks
        if name not in task.training_options
    ]
    return list(dict.fromkeys(reasons))


_WHY_NOT = {
    "label_smoothing": "a task of kind '{kind}' has no one class to smooth",
    "class_weights": "a task of kind '{kind}' has no classes",
    "packing": "only texts that are continued (task kind causal_lm) are packed",
}


def _impossible(strategy: Strategy | None, quantization: Quantization | None, training: Training | None) -> list[str]:
    """Return why the parts of a recipe, each right in itself, do not go together."""
    reasons = []
    if strategy and quantization and (refusal := strategy.refuses(quantization.kind)):
        allowed = [kind for kind in QUANTIZATIONS if not strategy.refuses(kind)]
        reasons.append(
            f"quantization: '{quantization.kind}' does not go with strategy '{strategy.kind}': {refusal};"
            f" allowed: {', '.join(allowed)}"
        )
    if quantization and quantization.double and quantization.kind not in ("nf4", "fp4"):
        reasons.append(
            f"quantization.double: only 4-bit kinds (nf4, fp4) have scales to quantise again, not '{quantization.kind}'"
        )
    if strategy and training and training.gradient_checkpointing and not strategy.supports_gradient_checkpointing:
        reasons.append(f"training.gradient_checkpointing: does not go with strategy '{strategy.kind}'; set it to false")
    if training and training.micro_batch_size and training.micro_batch_size > training.batch_size:
        reasons.append(
            f"training.micro_batch_size: {training.micro_batch_size} is more than batch_size = {training.batch_size}; make it that or less"
        )
    if strategy and training and training.packing and strategy.virtual_tokens():
        reasons.append(
            f"training.packing: strategy '{strategy.kind}' puts virtual tokens before every text, and in a row they would"
            " stand before the first alone; leave packing out"
        )
    if strategy and training and training.lora_plus_ratio and not strategy.has_lora_matrices:
        able = [name for name, kind in strategies().items() if kind.has_lora_matrices]
        reasons.append(
            f"training.lora_plus_ratio: strategy '{strategy.kind}' has no matrices A and B; it goes with {', '.join(able)}"
        )
    return reasons
