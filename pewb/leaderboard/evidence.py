"""The committed evidence: records that pewb is shipped with, as against a user's own runs beside them."""

from __future__ import annotations

from pathlib import Path

_MANIFEST = "SHA256SUMS"


def evidence_folder() -> Path | None:
    """Return the folder of the shipped records: `results/` of the source tree, or `share/pewb/results` of an installation."""
    source = Path(__file__).parents[2] / "results"
    if (source / _MANIFEST).is_file():
        return source
    from importlib.metadata import PackageNotFoundError, files

    try:
        shipped = [file for file in files("pewb") or [] if file.parts[-3:] == ("pewb", "results", _MANIFEST)]
    except PackageNotFoundError:
        return None
    return Path(str(shipped[0].locate())).resolve().parent if shipped else None


def evidence_files(results: Path) -> dict[str, str]:
    """Return the committed files, as `sha256sum` lists them from the folder above `results`: name to SHA-256."""
    lines = (results / _MANIFEST).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
