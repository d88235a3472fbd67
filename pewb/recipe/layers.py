"""A recipe's content in layers: the file, what `--set` lays over it, the rows of a comparison, the axes of a grid."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

from pewb.errors import InputError
from pewb.recipe.sections import kind_table

Content = dict[str, Any]

_TAGGED = ("strategy", "quantization")
"""Tables whose keys depend on their `kind`: another kind leaves nothing of what was there."""


def overridden(content: Content, overrides: Iterable[str]) -> Content:
    """Return `content` with `section.key=value` overrides.

    Raises:
        InputError: an override is not of that form, or goes through something that is no table.
    """
    result: Content = _copied(content)
    parsed = [_parsed_override(override) for override in overrides]
    for name in _TAGGED:
        kinds = [kind for keys, value in parsed if (kind := _kind_in(name, keys, value))]
        if kinds:
            _switch_kind(result, name, kinds[-1])
    for keys, value in parsed:
        _set(result, keys, value, f"--set {'.'.join(keys)}")
    return result


def cells(content: Content, overrides: Iterable[str]) -> list[tuple[str, Content]]:
    """Return the content of every row that `content` asks for, each with what tells it from the others.

    Each `[[compare]]` table is laid over the recipe; the lists in `[grid]` multiply. An override wins over both.

    Raises:
        InputError: the tables `compare` or `grid` have faults.
    """
    overrides = list(overrides)
    base = overridden(content, overrides)
    overlays, grid = base.pop("compare", None), base.pop("grid", {})
    parsed = [_parsed_override(override)[0] for override in overrides]
    if overlays is not None and any(keys[0] == "strategy" and keys[1:] in ([], ["kind"]) for keys in parsed):
        raise InputError("--set strategy: this recipe compares strategies; choose among them with --only")
    own = [text for text, keys in zip(overrides, parsed, strict=True) if keys[0] not in ("grid", "compare")]
    fixed = [keys[:-1] if keys[0] in _TAGGED and keys[1:] == ["kind"] else keys for keys in parsed]
    axes = {key: values for key, values in _axes(grid).items() if key.split(".") not in fixed}
    found: list[tuple[str, Content]] = []
    for name, overlay in _named(overlays):
        row = overridden(laid_over(base, overlay), own) if overlay else base
        for point in itertools.product(*axes.values()):
            values = dict(zip(axes, point, strict=True))
            cell = _copied(row)
            for key, value in values.items():
                if key in _TAGGED and (kind := _kind_in(key, [key], value)):
                    _switch_kind(cell, key, kind)
                _set(cell, _path_of(key, value), value, f"grid.{key}")
            cell = overridden(cell, own)
            if cell not in [other for _, other in found]:
                found.append(
                    (", ".join([name, *(f"{key} = {value}" for key, value in values.items())]).strip(", "), cell)
                )
    return found


def laid_over(content: Content, overlay: Content) -> Content:
    """Return `content` with the tables of `overlay` merged into its own; another strategy kind replaces that section."""
    result: Content = _copied(content)
    for name in _TAGGED:
        table = kind_table(overlay.get(name, {}))
        if isinstance(table, dict) and "kind" in table:
            _switch_kind(result, name, table["kind"])
    return _merged(result, {key: kind_table(value) if key in _TAGGED else value for key, value in overlay.items()})


def with_values(content: Content, values: dict[str, Any]) -> Content:
    """Return `content` with each dotted key of `values` set."""
    result: Content = _copied(content)
    for key, value in values.items():
        _set(result, key.split("."), value, key)
    return result


def _merged(content: Content, overlay: Content) -> Content:
    for key, value in overlay.items():
        old = kind_table(content.get(key)) if key in _TAGGED else content.get(key)
        content[key] = _merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else _copied(value)
    return content


def _switch_kind(content: Content, name: str, kind: str) -> None:
    """Empty the table `name` if it is of another kind, and forget the learning rate of another strategy."""
    table = kind_table(content.get(name, {}))
    before = table.get("kind") if isinstance(table, dict) else name
    if before == kind:
        content[name] = table
        return
    content[name] = {"kind": kind}
    if before and name == "strategy" and isinstance(content.get("training"), dict):
        content["training"].pop("learning_rate", None)


def _named(overlays: Any) -> Iterator[tuple[str, Content]]:
    """Yield each `[[compare]]` table with its name in messages; without any, the recipe stands for itself."""
    if overlays is None:
        yield "", {}
        return
    if not isinstance(overlays, list) or not overlays or not all(isinstance(one, dict) for one in overlays):
        raise InputError('compare: write it as tables: [[compare]], and below it keys such as strategy = "lora"')
    for number, overlay in enumerate(overlays, 1):
        if odd := {"compare", "grid"} & set(overlay):
            raise InputError(f"compare {number}: '{odd.pop()}' belongs at the top of the recipe")
        strategy = kind_table(overlay.get("strategy", {}))
        kind = strategy.get("kind", "") if isinstance(strategy, dict) else ""
        yield f"compare {number} {kind}".strip(), overlay


def _axes(grid: Any, above: str = "") -> dict[str, list[Any]]:
    """Return the lists of `[grid]` by their dotted keys."""
    if not isinstance(grid, dict):
        raise InputError('grid: write it as a table of lists: [grid], and below it quantization = ["none", "nf4"]')
    axes: dict[str, list[Any]] = {}
    for name, value in grid.items():
        key = f"{above}{name}"
        if isinstance(value, dict):
            axes |= _axes(value, f"{key}.")
        elif not isinstance(value, list) or not value:
            raise InputError(f"grid.{key}: got {value!r}; allowed: a list of values, each of which becomes a row")
        elif key in ("seeds", "compare", "tune"):
            raise InputError(f"grid.{key}: can't be an axis; write it at the top of the recipe")
        else:
            axes[key] = value
    return dict(sorted(axes.items(), key=lambda axis: axis[0] not in _TAGGED))  # a kind first, then what goes into it


def _path_of(key: str, value: Any) -> list[str]:
    return [key, "kind"] if key in _TAGGED and isinstance(value, str) else key.split(".")


def _kind_in(name: str, keys: list[str], value: Any) -> str | None:
    """Return the kind that an override gives to the table `name`, if it does."""
    if keys == [name, "kind"] or (keys == [name] and isinstance(value, str)):
        return str(value)
    return value.get("kind") if keys == [name] and isinstance(value, dict) else None


def _set(content: Content, keys: list[str], value: Any, told_as: str) -> None:
    if len(keys) == 1 and keys[0] in _TAGGED and isinstance(value, str):
        keys = [*keys, "kind"]
    table = content
    for key in keys[:-1]:
        table[key] = kind_table(table.get(key, {}))
        if not isinstance(table[key], dict):
            raise InputError(f"{told_as}: '{key}' is not a table in this recipe")
        table = table[key]
    table[keys[-1]] = value


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, list) else value


def _parsed_override(override: str) -> tuple[list[str], Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override}: write section.key=value, such as --set training.epochs=1")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return [part.strip() for part in key.split(".")], value
