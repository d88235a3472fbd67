"""The model hub as a source: files are taken one by one, resumably, and held to what was first seen."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pewb.assets import hub_api
from pewb.assets.cache import Slot, cache_folder, digest_file, locked
from pewb.assets.catalog import HubSource
from pewb.assets.download import download
from pewb.assets.hub_api import NoRepositoryError, RemoteFile, Repository, ask, authorization, endpoint, no_repository
from pewb.assets.missing import MissingError, one_line
from pewb.assets.pins import Pin, read_pin, write_pin
from pewb.assets.selection import backbone_files, is_safe, matching, needed_files
from pewb.errors import InputError
from pewb.reporting import Reporter, Silent

if TYPE_CHECKING:
    import httpx2

_READ_SECONDS = 30.0
_REPOSITORY_TYPES = {"backbone": "models", "task": "datasets"}

_log = logging.getLogger(__name__)


def _pin_key(source: HubSource, kind: str) -> str:
    patterns = f":{','.join(source.files)}" if source.files else ":without weights" if source.without_weights else ""
    return f"{_REPOSITORY_TYPES[kind]}/{source.hub}@{source.revision}{patterns}"


def _slot(source: HubSource, kind: str, commit: str) -> Slot:
    patterns = f"-{hashlib.sha256(repr(source.files).encode()).hexdigest()[:8]}" if source.files else ""
    patterns = patterns or ("-without-weights" if source.without_weights else "")
    return Slot(f"hub/{_REPOSITORY_TYPES[kind]}/{source.hub}/{commit}{patterns}")


def slot_of(source: HubSource, kind: str) -> Slot | None:
    """Return where the files of `source` are, if it was ever fetched."""
    pin = read_pin(_pin_key(source, kind))
    return _slot(source, kind, pin.commit) if pin else None


def commit_of(source: HubSource, kind: str) -> str:
    """Return the commit that a fetched `source` is held to."""
    pin = read_pin(_pin_key(source, kind))
    assert pin is not None, "only a fetched source has a commit"
    return pin.commit


def obtain(source: HubSource, kind: str, name: str, report: Reporter, renew: bool) -> Slot:
    """Fetch the files of `source`; the first time, and with `renew`, record its commit and digests.

    Raises:
        MissingError: they can't be had.
        InputError: they are not what they were when they were first fetched.
    """
    key = _pin_key(source, kind)
    pin = None if renew else read_pin(key)
    try:
        repository = ask(_REPOSITORY_TYPES[kind], source.hub, pin.commit if pin else source.revision)
    except NoRepositoryError as miss:
        if not pin:
            raise
        raise MissingError(
            f"{miss.reason}, which was there when {name} was first fetched",
            f"to accept what is there now: pewb fetch {name} --renew",
        ) from None
    place = source.hub
    names = _wanted(source, kind, repository.files)
    if unsafe := [path for path in names if not is_safe(path)]:
        raise MissingError(
            f"{place} has a file whose name leads out of its folder ('{unsafe[0]}')", "don't use this repository"
        )
    slot = _slot(source, kind, repository.commit)
    with locked(slot.key, report):
        digests = None if renew else slot.verified(name, Silent())  # another process may have been faster
        if digests is None:
            if renew:
                shutil.rmtree(slot.staging, ignore_errors=True)
            else:
                slot.salvage()
            _gather(source, kind, repository, names, slot.staging, pin, name, report)
            _hold_to(pin, {path: digest_file(slot.staging / path) for path in names}, name, slot.staging)
            digests = slot.install(f"hub:{source.hub}@{repository.commit}", names)
        if pin is None or set(pin.files) != set(digests):
            write_pin(key, Pin(repository.commit, digests))
    return slot


def _wanted(source: HubSource, kind: str, paths: Iterable[str]) -> list[str]:
    """Return which of the repository's files `source` is about."""
    if source.files:
        return matching(paths, source.files, source.hub)
    if source.without_weights:
        return backbone_files(paths, source.hub, without_weights=True)
    return needed_files(kind, paths, source.hub)


def part_of(source: HubSource, kind: str, **keys: Any) -> HubSource:
    """Return a part of `source`, by the keys of `HubSource` that say which.

    Where the whole of `source` was fetched before, the part is held to that commit and to its digests.

    Raises:
        MissingError: the whole has no such part.
    """
    whole = read_pin(_pin_key(source, kind))
    part = source.model_copy(update=keys | {"revision": whole.commit if whole else source.revision})
    if whole and read_pin(_pin_key(part, kind)) is None:
        files = {path: whole.files[path] for path in _wanted(part, kind, whole.files)}
        write_pin(_pin_key(part, kind), Pin(whole.commit, files))
    return part


def _hold_to(pin: Pin | None, digests: dict[str, str], name: str, staging: Path) -> None:
    changed = [path for path, digest in digests.items() if pin and pin.files.get(path, digest) != digest]
    if changed:
        for path in changed:
            (staging / path).unlink(missing_ok=True)
        raise InputError(
            f"{name}: {', '.join(changed)} on the hub is not what it was when it was first fetched, though the commit is the same; "
            f"if you trust the new content: pewb fetch {name} --renew"
        )


def _gather(
    source: HubSource,
    kind: str,
    repository: Repository,
    names: list[str],
    staging: Path,
    pin: Pin | None,
    name: str,
    report: Reporter,
) -> None:
    """Bring every file that is not there yet into `staging`."""
    import httpx2

    sizes = [repository.files[path].size for path in names]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    done = 0
    prefix = "datasets/" if kind == "task" else ""
    with httpx2.Client(timeout=httpx2.Timeout(_READ_SECONDS, connect=hub_api.PROBE_SECONDS)) as client:
        answered = False
        for path in names:
            staged = staging / path
            if not _is_staged(staged, repository.files[path], pin):
                url = f"{endpoint()}/{prefix}{source.hub}/resolve/{repository.commit}/{quote(path)}"
                if not answered:
                    hub_api.see_that_files_come(client, url, repository.token)
                    answered = True
                try:
                    _bring(
                        client,
                        url,
                        repository.files[path],
                        repository.token,
                        staged,
                        _Progress(report, name, path, done, total),
                    )
                except httpx2.HTTPStatusError as error:
                    if error.response.status_code in (401, 403):
                        raise no_repository(source.hub, source.revision, error.response.status_code) from None
                    raise _broken_off(path, f"status {error.response.status_code}") from None
                except httpx2.HTTPError as error:
                    raise _broken_off(path, one_line(error)) from None
            done += staged.stat().st_size
            report.progress(f"fetching {name}", done, total, path)


def _is_staged(staged: Path, file: RemoteFile, pin: Pin | None) -> bool:
    """Whether an earlier attempt has brought this file whole."""
    if not staged.is_file() or file.size not in (None, staged.stat().st_size):
        return False
    expected = (pin.files.get(file.path) if pin else None) or file.sha256
    return expected in (None, digest_file(staged))


def _broken_off(path: str, reason: str) -> MissingError:
    return MissingError(
        f"the model hub broke off while sending {path} ({reason})", "run it again: it goes on where it stopped"
    )


@dataclass(frozen=True)
class _Progress:
    report: Reporter
    name: str
    path: str
    before: int
    total: int | None

    def __call__(self, done: int, total: int | None) -> None:
        self.report.progress(f"fetching {self.name}", self.before + done, self.total, self.path)


def _bring(
    client: httpx2.Client, url: str, file: RemoteFile, token: str | None, staged: Path, progress: _Progress
) -> None:
    """Download one file to `staged`; a resumed one that comes out wrong is fetched once more from the start."""
    partial = cache_folder() / "downloads" / f"{hashlib.sha256(url.encode()).hexdigest()}.partial"
    for attempt in (1, 2):
        download(client, url, partial, progress, authorization(token))
        size = partial.stat().st_size
        if file.size in (None, size) and file.sha256 in (None, digest_file(partial)):
            staged.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(staged)
            return
        partial.unlink()
        _log.info("%s arrived wrong (attempt %d)", file.path, attempt)
    raise MissingError(
        f"the model hub sent {file.path} with another content than it has announced",
        "try again later, or another mirror (HF_ENDPOINT)",
    )
