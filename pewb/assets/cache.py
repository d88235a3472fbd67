"""The cache: verified files with a manifest of their digests, moved into place only when whole.

downloads/   what is being fetched; kept when interrupted
files/       one folder for each source, and beside it its manifest
locks/       one process at a time fetches a source
pins.json    the commit and digests of each hub repository when it was first fetched
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pewb.reporting import Reporter


def cache_folder() -> Path:
    """Return the folder that holds everything fetched: `PEWB_CACHE`, or the user's cache folder."""
    if chosen := os.environ.get("PEWB_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("pewb")


def digest_file(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Slot:
    """The place of one source's files in the cache."""

    key: str
    """A relative path such as `hub/models/org/name/<commit>`."""

    @property
    def folder(self) -> Path:
        """Where the verified files are."""
        return cache_folder() / "files" / self.key

    @property
    def staging(self) -> Path:
        """Where they are gathered until all of them are there."""
        return cache_folder() / "downloads" / self.key

    @property
    def _manifest(self) -> Path:
        return self.folder.with_name(self.folder.name + ".manifest.json")

    def manifest(self) -> dict[str, dict[str, Any]]:
        """Return each file's `sha256` and `bytes`; empty if nothing was installed here."""
        try:
            content = json.loads(self._manifest.read_text(encoding="utf-8"))
            return {
                path: {"sha256": str(facts["sha256"]), "bytes": int(facts["bytes"])}
                for path, facts in content["files"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def is_whole(self) -> bool:
        """Whether every file is there in its size, which is quick to tell."""
        manifest = self.manifest()
        return bool(manifest) and all(_size(self.folder / path) == facts["bytes"] for path, facts in manifest.items())

    def holds(self, path: str) -> bool:
        """Whether the one file `path` is there and is what it was when it was installed."""
        facts = self.manifest().get(path)
        return facts is not None and self._is_intact(path, facts)

    def damaged(self) -> list[str]:
        """Return the files that are missing or are not what they were when they were installed."""
        return [path for path, facts in self.manifest().items() if not self._is_intact(path, facts)]

    def _is_intact(self, path: str, facts: dict[str, Any]) -> bool:
        file = self.folder / path
        return _size(file) == facts["bytes"] and digest_file(file) == str(facts["sha256"])

    def verified(self, name: str, report: Reporter) -> dict[str, str] | None:
        """Return every file's digest if all are intact, else None; damage is reported."""
        manifest = self.manifest()
        if not manifest or not self.folder.is_dir():
            return None
        if damaged := self.damaged():
            report.notice(f"{name}: {', '.join(damaged)} in the cache is damaged or changed; fetching it again")
            return None
        return {path: facts["sha256"] for path, facts in manifest.items()}

    def salvage(self) -> None:
        """Put what is intact of a damaged copy where the missing rest will be gathered."""
        damaged = set(self.damaged())
        for path in self.manifest():
            staged = self.staging / path
            if path not in damaged and not staged.exists():
                staged.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.folder / path, staged)

    def install(self, source: str, names: list[str]) -> dict[str, str]:
        """Move the gathered files `names` into place, write their manifest and return their digests."""
        for path in [path for path in self.staging.rglob("*") if path.is_file()]:
            if path.relative_to(self.staging).as_posix() not in names:
                path.unlink()
        facts = {
            name: {"sha256": digest_file(self.staging / name), "bytes": (self.staging / name).stat().st_size}
            for name in names
        }
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.staging.replace(self.folder)
        write_json(self._manifest, {"source": source, "files": facts})
        return {name: str(fact["sha256"]) for name, fact in facts.items()}


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def write_json(path: Path, content: Any) -> None:
    """Write `content` so that a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)


def slug(text: str) -> str:
    """Return `text` as the name of a file."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "--", text)


@contextmanager
def locked(key: str, report: Reporter) -> Iterator[None]:
    """Let one process at a time do what is named by `key`; others wait, and say so."""
    from filelock import FileLock, Timeout

    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{slug(key)}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report.notice(f"another process is fetching {key}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
