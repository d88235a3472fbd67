"""The keys of a recipe as rows of facts, for `pewb list keys`: what the sections' own fields say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import BaseModel

from pewb.recipe.sections import Recipe
from pewb.strategies import strategies
from pewb.tasks import TASKS


@dataclass
class Key:
    """One key, as it is written with `--set`."""

    name: str
    description: str
    allowed: str
    """Its type, or what can be chosen, and its bounds."""
    default: str | None
    """In TOML's words; None where it is left out by default, or must be given."""
    is_required: bool = False
    kinds: list[str] = field(default_factory=list)
    """Of a strategy's or a task's key, the kinds that have it; else empty."""


def recipe_keys() -> list[Key]:
    """Return every key of a recipe, in the order of its sections; what means the same for several kinds stands once."""
    found: list[Key] = []
    kinds: dict[str, Mapping[str, type[BaseModel]]] = {"strategy": strategies(), "task": TASKS}
    for key in _keys_of(Recipe):
        key.allowed = _WRITTEN.get(key.name, key.allowed)
        found.append(key)
        if key.name in kinds:
            found += _of_kinds(kinds[key.name], f"{key.name}.")
        elif section := _section(Recipe.model_fields[key.name].annotation):
            key.description = key.description or (section.__doc__ or "").partition("\n")[0]
            key.default = None
            found += _keys_of(section, f"{key.name}.")
    return found + [Key(name, *facts, None) for name, facts in _OF_FILES.items()]


_WRITTEN = {
    "backbone": "name, or list of names",
    "task": "name, list of names, or table",
    "strategy": "kind, or table with a kind",
    "quantization": "kind, or table with a kind",
}
"""What may stand in the place of tables and lists."""
_OF_FILES = {
    "compare": ("Tables that are laid over the recipe above them, each of which is a row.", "list of tables"),
    "grid": ("Keys with lists of values, which multiply the rows.", "table of lists"),
}
"""Keys of a recipe's file, which make several recipes of it."""


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a key of the recipe holds, if it is one."""
    classes = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
    return next((one for one in classes if issubclass(one, BaseModel)), None)


def _of_kinds(kinds: Mapping[str, type[BaseModel]], prefix: str) -> list[Key]:
    found: dict[tuple[str, ...], Key] = {}
    for kind, section in kinds.items():
        for key in _keys_of(section, prefix):
            place = (key.name, key.description, key.allowed, key.default or "")
            found.setdefault(place, key).kinds.append(kind)
    keys = [key for key in found.values() if key.name != f"{prefix}kind"]
    for key in keys:
        key.kinds = [] if key.kinds == list(kinds) else key.kinds
    return [Key(f"{prefix}kind", "Which of these it is.", " | ".join(kinds), None), *keys]


def _keys_of(section: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    schema = section.model_json_schema()
    for name, fact in schema["properties"].items():
        default = fact.get("default")
        description = " ".join(fact.get("description", "").split())
        yield Key(
            f"{prefix}{name}",
            description,
            _allowed(fact, schema.get("$defs", {})),
            None if default is None else json.dumps(default, ensure_ascii=False),
            name in schema.get("required", ()),
        )


_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
_TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}


def _allowed(fact: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Return a key's type in words, from its JSON schema."""
    if "anyOf" in fact:
        parts = [_allowed(one, known) for one in fact["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts))
    if "enum" in fact:
        return " | ".join(map(str, fact["enum"]))
    if "const" in fact:
        return str(fact["const"])
    kind = fact.get("type")
    if "$ref" in fact:
        return f"table of {', '.join(known[fact['$ref'].rpartition('/')[2]]['properties'])}"
    if kind == "array":
        return f"list of: {_allowed(fact.get('items', {}), known)}"
    if kind not in _TYPES:
        return "table"
    bounds = [f"{words} {fact[name]:.10g}" for name, words in _BOUNDS.items() if name in fact]
    return ", ".join([_TYPES[kind], *bounds])
