"""Archives: named members are copied out, and nothing in them is ever imported or executed."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from pewb.assets.missing import MissingError

_ZIP_SUFFIXES = (".whl", ".zip")


def extract(
    archive: Path, archive_name: str, members: dict[str, str], drop_lines: dict[str, tuple[int, ...]], folder: Path
) -> None:
    """Copy `members` (from local names to paths; `!` leads into an archive inside) out of `archive` into `folder`.

    Raises:
        MissingError: there is no such member, or it is no plain file.
    """
    for local, path in members.items():
        target = folder / local
        target.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened, target.open("wb") as copy:
            source: IO[bytes] = opened.enter_context(archive.open("rb"))
            name = archive_name
            for part in path.split("!"):
                source = opened.enter_context(_member(source, name, part, opened))
                name = part
            if dropped := drop_lines.get(local):
                copy.writelines(line for number, line in enumerate(source, 1) if number not in dropped)
            else:
                shutil.copyfileobj(source, copy, 1 << 20)


def _member(file: IO[bytes], name: str, member: str, opened: ExitStack) -> IO[bytes]:
    """Open one member of the archive `file`, which is called `name`."""
    missing = MissingError(f"{name} holds no file '{member}'", "this is a fault of the catalogue; report it")
    try:
        if name.endswith(_ZIP_SUFFIXES):
            return opened.enter_context(zipfile.ZipFile(file)).open(member)
        archive = opened.enter_context(tarfile.TarFile.open(fileobj=file, mode="r:*"))
        found = archive.getmember(member)
        content = archive.extractfile(found) if found.isfile() else None
    except (KeyError, zipfile.BadZipFile, tarfile.TarError):
        raise missing from None
    if content is None:
        raise missing
    return content
