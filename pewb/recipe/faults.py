"""A recipe's faults in words: the key, what was got, what is allowed, the nearest name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel

from pewb.errors import nearest
from pewb.recipe.sections import NAMES, Recipe
from pewb.strategies import strategies
from pewb.tasks import TASKS


def explained(fault: Any) -> str:
    """Return one of pydantic's faults as a sentence with its key, what was got, and what is allowed."""
    place = tuple(fault["loc"])
    allowed = _keys_at(place[:-1])
    shown = ".".join(str(part) for part in _without_tags(place))
    kind, got = fault["type"], fault["input"]
    if kind == "extra_forbidden":
        return f"{shown}: unknown key{nearest(str(place[-1]), allowed)}; allowed: {', '.join(allowed)}"
    if kind == "missing":
        return f"{shown}: missing; write it{_example(shown)}"
    if kind == "union_tag_invalid":
        names = list(strategies()) if shown.startswith("strategy") else list(TASKS)
        return f"{shown}.kind: got '{fault['ctx']['tag']}'{nearest(fault['ctx']['tag'], names)}; allowed: {', '.join(names)}"
    if kind == "union_tag_not_found":
        return f"{shown}.kind: missing; name one of {', '.join(strategies())}"
    if kind == "literal_error":
        choices = fault["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{shown}: got {got!r}{nearest(str(got), choices)}; allowed: {', '.join(choices)}"
    message = fault["msg"].removeprefix("Value error, ")
    return (
        f"{shown}: {message}" if kind == "value_error" else f"{shown}: got {got!r}; {message[0].lower()}{message[1:]}"
    )


def _example(key: str) -> str:
    examples = {
        "backbone": 'backbone = "minilm-l6"',
        "task": 'task = "movie-snippets"',
        "strategy": '[strategy] with kind = "lora"',
    }
    return f", such as {examples[key]}" if key in examples else ""


def _without_tags(place: Iterable[Any]) -> list[Any]:
    """Return a fault's place without the names that pydantic gives to a union's branches."""
    parts = list(place)
    if len(parts) > 1 and (parts[0] == "strategy" or (parts[0] == "task" and parts[1] in (NAMES, *TASKS))):
        del parts[1]
    return parts


def _keys_at(place: tuple[Any, ...]) -> list[str]:
    """Return the keys that the table at `place` may have."""
    model: type[BaseModel] = Recipe
    for part in place:
        if part in strategies():
            model = strategies()[part]
        elif part in TASKS:
            model = TASKS[part]
        elif part in model.model_fields:
            found = _model_in(model.model_fields[part].annotation)
            model = found or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
