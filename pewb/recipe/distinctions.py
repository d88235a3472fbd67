"""What tells a comparison's rows apart, where strategy, settings and storage do not."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from pewb.recipe.sections import Recipe


def distinctions(recipes: Sequence[Recipe]) -> list[str]:
    """Return, for each recipe, the keys that differ among those of its strategy, settings and storage; mostly empty.

    A key that is left out is not named, so that of LoRA and LoRA+ one is called by its name and the other by what it adds.
    """
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, recipe in enumerate(recipes):
        alike[recipe.strategy.kind, recipe.strategy.describe(), str(recipe.quantization)].append(place)
    told = [""] * len(recipes)
    for places in alike.values():
        keys = {place: dict(_dotted(recipes[place].model_dump(mode="json"))) for place in places}
        names = dict.fromkeys(name for values in keys.values() for name in values)
        differing = [name for name in names if len({values.get(name) for values in keys.values()}) > 1]
        for place, values in keys.items():
            told[place] = ", ".join(f"{name}={values[name]}" for name in differing if name in values)
    return told


def _dotted(table: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys with their values as text, less those that are null."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{above}{key}.")
        elif value is not None:
            yield f"{above}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
