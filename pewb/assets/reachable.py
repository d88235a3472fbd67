"""Whether the sources of the catalogue answer, without downloading anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from pewb.assets import pypi
from pewb.assets.catalog import HubSource, PypiSource, backbones, tasks
from pewb.assets.hub_api import NoRepositoryError, ask
from pewb.assets.missing import MissingError

_Kind = TypeVar("_Kind", HubSource, PypiSource)


def hub_fault() -> MissingError | None:
    """Return why the model hub can't be asked, or None if it answers."""
    source = next(_sources(HubSource))
    try:
        ask("models", source.hub, source.revision)
    except NoRepositoryError:
        return None  # it is there, and answers
    except MissingError as error:
        return error
    return None


def package_index_fault() -> MissingError | None:
    """Return why pip's index has nothing for us, or None if it has the first package that the catalogue names."""
    return pypi.fault(next(_sources(PypiSource)))


def _sources(kind: type[_Kind]) -> Iterator[_Kind]:
    for entry in [*backbones().values(), *tasks().values()]:
        for source in entry.sources:
            if isinstance(source, kind):
                yield source
