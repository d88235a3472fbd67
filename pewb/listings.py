"""What there is to choose from: strategies, and the catalogue's tasks and backbones, as rows of facts."""

from __future__ import annotations

from typing import Any

from pewb.errors import InputError, nearest


def listing(what: str) -> list[dict[str, Any]]:
    """Return a row for each of `what`: "strategies", "tasks" or "backbones".

    Raises:
        InputError: `what` is none of these.
    """
    listings = {"strategies": _strategies, "tasks": _tasks, "backbones": _backbones}
    if what not in listings:
        raise InputError(f"list: got '{what}'{nearest(what, list(listings))}; allowed: {', '.join(listings)}")
    return listings[what]()


def _strategies() -> list[dict[str, Any]]:
    from pewb.strategies import strategies

    return [
        {
            "name": name,
            "description": strategy.trains,
            "learning_rate": strategy.default_learning_rate,
            "learning_rate_source": strategy.learning_rate_source,
            "quantization": list(strategy.quantizations),
            "keys": [key for key in strategy.model_fields if key != "kind"],
            "paper": strategy.paper,
        }
        for name, strategy in strategies().items()
    ]


def _tasks() -> list[dict[str, Any]]:
    from pewb.assets import cached, tasks

    return [
        {
            "name": name,
            "description": entry.description,
            "kind": entry.spec["kind"],
            "license": entry.license,
            "cached": cached("task", name),
        }
        for name, entry in tasks().items()
    ]


def _backbones() -> list[dict[str, Any]]:
    from pewb.assets import backbones, cached

    return [
        {
            "name": name,
            "description": entry.description,
            "architecture": entry.model_type,
            "parameters": entry.parameters,
            "license": entry.license,
            "cached": cached("backbone", name),
        }
        for name, entry in backbones().items()
    ]
