"""A folder on this computer as a source: nothing is copied, only looked at."""

from __future__ import annotations

from pathlib import Path

from pewb.assets.cache import digest_file
from pewb.assets.missing import MissingError
from pewb.assets.selection import needed_files


def inspect(kind: str, given: str) -> tuple[Path, dict[str, str]]:
    """Return the folder that the user gave and the digest of each file that is needed of it.

    Raises:
        MissingError: it is not there, or does not hold what is needed.
    """
    folder = existing(given)
    found = folder.iterdir() if kind == "backbone" else folder.rglob("*")
    paths = [path.relative_to(folder).as_posix() for path in found if path.is_file()]
    return folder.resolve(), {
        path: digest_file(folder / path) for path in needed_files(kind, paths, f"the folder '{given}'")
    }


def existing(given: str) -> Path:
    """Return the folder that the user gave.

    Raises:
        MissingError: it is not there.
    """
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise MissingError(f"there is no folder '{given}'", "check the path; it is taken from the current folder")
    return folder
