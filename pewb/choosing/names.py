"""What the rows of a recipe are called, so that each is told from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pewb.recipe import Cell, Recipe


def names_of(cells: Sequence[Cell], backbones: Sequence[str]) -> list[str]:
    """Return for each row the shortest of its names that no other row has."""
    several = len(set(backbones)) > 1
    ladders = []
    for cell, backbone in zip(cells, backbones, strict=True):
        recipe = cell.recipe
        storage = "" if recipe.quantization.kind == "none" else str(recipe.quantization)
        kind, settings = recipe.strategy.kind, recipe.strategy.describe()
        alike = [one.recipe for one, other in zip(cells, backbones, strict=True) if other == backbone]
        alike = [one for one in alike if (one.strategy, one.quantization) == (recipe.strategy, recipe.quantization)]
        place = backbone if several else ""
        apart = _apart(recipe, alike)
        versions = (
            [recipe.strategy.title, storage],
            [kind, storage, *apart],
            [kind, settings, storage],
            [kind, settings, storage, *apart],
        )
        ladders.append([" ".join(part for part in (place, *parts) if part) for parts in versions])
    counts = [Counter(names) for names in zip(*ladders, strict=True)]
    found = [
        next((name for name, count in zip(names, counts, strict=True) if count[name] == 1), names[-1])
        for names in ladders
    ]
    repeated = Counter(found)
    return [f"{name} (row {number})" if repeated[name] > 1 else name for number, name in enumerate(found, 1)]


def _apart(recipe: Recipe, others: Sequence[Recipe]) -> list[str]:
    """Return the keys of `training` and `limit` that tell a recipe from others, with their values."""
    limits = {f"limit.{key}": value for key, value in recipe.limit.model_dump().items()}
    differing = {key for key in limits if len({getattr(one.limit, key.partition(".")[2]) for one in others}) > 1}
    limited = [f"{key} {limits[key]}" for key in limits if key in differing and limits[key] is not None]
    keys = recipe.training.model_dump()
    told = [key for key in keys if len({str(getattr(one.training, key)) for one in others}) > 1]
    if "lora_plus_ratio" in told:  # whose default rate is another
        told = [key for key in told if key != "learning_rate"]
    return [f"{key.replace('_', ' ')} {keys[key]}" for key in told if keys[key] is not None] + limited
