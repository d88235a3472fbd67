"""What a hub repository held when it was first fetched, and is held to after that."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pewb.assets.cache import cache_folder, locked, write_json
from pewb.errors import InputError
from pewb.reporting import Silent


@dataclass(frozen=True)
class Pin:
    """The commit that a revision was at, and the SHA-256 of each file fetched from it."""

    commit: str
    files: dict[str, str]


def _path() -> Path:
    return cache_folder() / "pins.json"


def _read() -> dict[str, Any]:
    path = _path()
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
        reason = "it is no JSON object"
    except ValueError as error:
        reason = str(error)
    raise InputError(f"{path} can't be read ({reason}); restore it, or remove it to accept what the hub has now")


def read_pin(key: str) -> Pin | None:
    """Return what is recorded of `key`, which is such as "models/org/name@main"."""
    content = _read().get(key)
    if content is None:
        return None
    try:
        return Pin(str(content["commit"]), dict(content["files"]))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{_path()}: the entry '{key}' is damaged; remove it to accept what the hub has now") from None


def write_pin(key: str, pin: Pin) -> None:
    """Record `pin` of `key`."""
    with locked("pins", Silent()):
        write_json(_path(), _read() | {key: {"commit": pin.commit, "files": pin.files}})
