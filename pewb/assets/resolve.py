"""From a name to verified local files: the cached copy first, else the sources in order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pewb.assets import folder, hub, pypi
from pewb.assets.cache import Slot, cache_folder
from pewb.assets.catalog import (
    BackboneEntry,
    FolderSource,
    HubSource,
    Kind,
    PypiSource,
    Source,
    TaskEntry,
    backbones,
    tasks,
)
from pewb.assets.missing import MissingError, one_line
from pewb.errors import InputError, UnavailableError, nearest
from pewb.reporting import Reporter, Silent

if TYPE_CHECKING:
    from pewb.record import AssetRecord

_HUB_REFERENCE = re.compile(
    r"(?P<hub>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?P<file>/[^@]+\.gguf)?(@(?P<revision>[\w./-]+))?"
)


@dataclass(frozen=True)
class Asset:
    """A backbone or a task whose files are on this computer and are what they should be."""

    name: str
    """As it was asked for."""
    kind: Kind
    source: str
    """`hub:org/name@commit`, `pypi:package==version` or `folder:path`."""
    folder: Path
    digests: dict[str, str]
    """From relative paths to SHA-256."""
    hub_id: str | None
    """The repository on the hub that has the same files."""

    def to_record(self) -> AssetRecord:
        """Return what a run's record keeps of it."""
        from pewb.record import AssetRecord

        return AssetRecord(name=self.name, kind=self.kind, source=self.source, digests=self.digests)


def fetch(
    kind: Kind,
    reference: str,
    report: Reporter | None = None,
    renew: bool = False,
    files: Sequence[str] = (),
    without_weights: bool = False,
) -> Asset:
    """Return the asset that `reference` names: a catalogue name, a folder, or a hub id ("org/name", "org/name@revision").

    Args:
        kind: "backbone" or "task".
        reference: what the user wrote.
        report: hears of fallbacks, damage and progress.
        files: of a hub id, only what these paths or patterns name; left out: whatever is needed of such a repository.
        renew: ask the hub again, and accept what it has now in place of what was first fetched.
        without_weights: of a backbone on the hub that is not here yet, only what describes it and reads its texts.

    Raises:
        InputError: the name is unknown, or the hub's files are not what they were at the first fetch.
        UnavailableError: no source has it; every reason is named, and the way out.
    """
    report = report or Silent()
    sources = sources_of(kind, reference, files)
    try:
        cached = None if renew else _first_cached(kind, reference, sources, report)
        if without_weights and not cached:
            sources = tuple(
                hub.part_of(one, kind, without_weights=True) if isinstance(one, HubSource) else one for one in sources
            )
            parts = [one for one in sources if isinstance(one, HubSource)]
            cached = _first_cached(kind, reference, parts, report)
        return cached or _first_obtained(kind, reference, sources, report, renew)
    except OSError as error:
        raise InputError(
            f"{reference}: the files can't be read or written ({one_line(error)}); the cache is {cache_folder()}, PEWB_CACHE names another"
        ) from None


def fetch_first(
    kind: Kind, references: Sequence[str], report: Reporter | None = None, without_weights: bool = False
) -> Asset:
    """Return the first of `references` that can be had, as `fetch` does; each one that can't is told in one line.

    Raises:
        InputError: a name is unknown, whether or not its turn would come.
        UnavailableError: none can be had.
    """
    report = report or Silent()
    for reference in references:
        sources_of(kind, reference)
    misses: list[tuple[str, MissingError]] = []
    for reference in references:
        try:
            asset = fetch(kind, reference, report, without_weights=without_weights)
        except MissingError as miss:
            misses.append((reference, miss))
            continue
        for missed, reason in misses:
            report.notice(f"{missed}: {reason.reason}; using {reference} instead")
        return asset
    reasons = [f"{missed}: {miss.reason}" for missed, miss in misses]
    raise together(f"no {kind} can be had", reasons, [miss for _, miss in misses])


def cached(kind: Kind, name: str) -> bool:
    """Whether `name` can be had with no network; looks at names and sizes only, which is quick."""
    try:
        sources = sources_of(kind, name)
    except UnavailableError:
        return False
    return any(_is_here(kind, source) for source in sources)


def _entry(kind: Kind, name: str) -> BackboneEntry | TaskEntry | None:
    return backbones().get(name) if kind == "backbone" else tasks().get(name)


def sources_of(kind: Kind, reference: str, files: Sequence[str] = ()) -> tuple[Source, ...]:
    """Return where `reference` may be had, in order.

    Raises:
        InputError: the name is unknown.
    """
    if entry := _entry(kind, reference):
        return entry.sources
    looks_like_path = reference.startswith(("/", ".", "~")) or "\\" in reference
    if looks_like_path or (reference and Path(reference).is_dir()):
        return (FolderSource(folder=reference),)
    if match := _HUB_REFERENCE.fullmatch(reference):
        named = (match["file"].removeprefix("/"),) if match["file"] else tuple(files)
        return (HubSource(hub=match["hub"], revision=match["revision"] or "main", files=named),)
    known = sorted(backbones() if kind == "backbone" else tasks())
    raise InputError(
        f"no {kind} '{reference}'{nearest(reference, known)}; known are {', '.join(known)}, a folder, or a hub id such as 'org/name'"
    )


def slot_of(kind: Kind, source: HubSource | PypiSource) -> Slot | None:
    """Return the place in the cache of what `source` has; None: it was never fetched."""
    return hub.slot_of(source, kind) if isinstance(source, HubSource) else pypi.slot_of(source)


def _is_here(kind: Kind, source: Source) -> bool:
    if isinstance(source, FolderSource):
        return Path(source.folder).expanduser().is_dir()
    slot = slot_of(kind, source)
    return slot is not None and slot.is_whole()


def _first_cached(kind: Kind, name: str, sources: Sequence[Source], report: Reporter) -> Asset | None:
    for source in sources:
        if isinstance(source, FolderSource):
            continue
        slot = slot_of(kind, source)
        if slot and (digests := slot.verified(name, report)):
            return _asset(kind, name, source, slot.folder, digests)
    return None


def _first_obtained(kind: Kind, name: str, sources: Sequence[Source], report: Reporter, renew: bool) -> Asset:
    misses: list[tuple[Source, MissingError]] = []
    for source in sources:
        try:
            where, digests = _obtain(kind, name, source, report, renew)
        except MissingError as miss:
            misses.append((source, miss))
            continue
        for _, reason in misses:
            report.notice(f"{name}: {reason.reason}; using {source} instead")
        return _asset(kind, name, source, where, digests)
    raise together(name, [miss.reason for _, miss in misses], [miss for _, miss in misses])


def _obtain(kind: Kind, name: str, source: Source, report: Reporter, renew: bool) -> tuple[Path, dict[str, str]]:
    if isinstance(source, FolderSource):
        return folder.inspect(kind, source.folder)
    slot = (
        hub.obtain(source, kind, name, report, renew)
        if isinstance(source, HubSource)
        else pypi.obtain(source, name, report)
    )
    return slot.folder, {path: str(facts["sha256"]) for path, facts in slot.manifest().items()}


def _asset(kind: Kind, name: str, source: Source, where: Path, digests: dict[str, str]) -> Asset:
    entry = _entry(kind, name)
    if isinstance(source, HubSource):
        return Asset(name, kind, f"hub:{source.hub}@{hub.commit_of(source, kind)}", where, digests, source.hub)
    place = f"pypi:{source.pypi}" if isinstance(source, PypiSource) else f"folder:{source.folder}"
    return Asset(name, kind, place, where, digests, entry.hub_id if entry else None)


def together(subject: str, reasons: Sequence[str], misses: Sequence[MissingError]) -> MissingError:
    """Make one miss of several: every reason once, every way out once."""
    ways_out = dict.fromkeys(miss.way_out for miss in misses)
    return MissingError("; ".join(dict.fromkeys(reasons)), "; or ".join(ways_out), subject)
