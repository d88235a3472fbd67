"""Tables in files: CSV, TSV, JSON Lines and Parquet, with or without a header line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pewb.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas

Format = Literal["csv", "tsv", "jsonl", "parquet"]

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}


def files_of(folder: Path, pattern: str, key: str) -> list[Path]:
    """Return the files that `pattern` (a path or a glob) names below `folder`.

    Raises:
        InputError: there are none.
    """
    direct = folder / pattern
    if direct.is_file():
        return [direct]
    found = sorted(path for path in folder.glob(pattern) if path.is_file()) if not Path(pattern).is_absolute() else []
    if not found:
        near = [path.name for path in direct.parent.iterdir() if path.is_file()] if direct.parent.is_dir() else []
        raise InputError(
            f"task.{key}: no file '{pattern}'{nearest(Path(pattern).name, near)}; paths are taken from the current folder"
        )
    return found


def read_table(paths: list[Path], format: Format | None, header: bool) -> pandas.DataFrame:
    """Read `paths`, all of one shape, into one table; without a header line its columns are numbered from 0.

    TSV is read without quoting, as the format is defined; CSV with it.

    Raises:
        InputError: the format is unknown or a file is not what its name says.
    """
    import csv

    import pandas

    tables = []
    for path in paths:
        kind = format or _FORMATS.get(path.suffix.lower())
        if kind is None:
            raise InputError(
                f"{path}: '{path.suffix}' is not a table pewb reads; use .csv, .tsv, .jsonl or .parquet, or set task.format"
            )
        first_line = 0 if header else None
        try:
            if kind == "csv":
                table = pandas.read_csv(
                    path, header=first_line, dtype=object, keep_default_na=False, na_values=[""], encoding="utf-8-sig"
                )
            elif kind == "tsv":
                table = pandas.read_csv(
                    path,
                    sep="\t",
                    header=first_line,
                    dtype=object,
                    keep_default_na=False,
                    na_values=[""],
                    quoting=csv.QUOTE_NONE,
                    encoding="utf-8-sig",
                )
            elif kind == "jsonl":
                is_array = path.read_text(encoding="utf-8-sig")[:64].lstrip().startswith("[")
                table = pandas.read_json(
                    path, lines=not is_array, dtype=False, convert_dates=False, encoding="utf-8-sig"
                )
            else:
                table = pandas.read_parquet(path)
        except (
            ValueError,
            OSError,
            pandas.errors.ParserError,
            pandas.errors.EmptyDataError,
            UnicodeDecodeError,
        ) as error:
            raise InputError(
                f"{path} can't be read as {kind}: {str(error).strip()}; mend the file or set task.format"
            ) from None
        tables.append(table)
    return tables[0] if len(tables) == 1 else pandas.concat(tables, ignore_index=True)


def column(table: pandas.DataFrame, name: str | int, key: str, path: str, header: bool) -> pandas.Series:
    """Return the column that the recipe's `key` names.

    Raises:
        InputError: there is no such column.
    """
    if not header and not isinstance(name, int):
        raise InputError(
            f"task.{key}: '{name}' is a name, but header = false: give the column's number, 0 to {len(table.columns) - 1}"
        )
    if name in table.columns:
        return table[name]
    names = [str(column) for column in table.columns]
    hint = nearest(str(name), names)
    if header and len(names) > 1 and not hint and all(len(text) > 20 or text.lstrip("-").isdigit() for text in names):
        hint = "; the file seems to have no header line: set header = false and number the columns"
    raise InputError(f"task.{key}: {path} has no column '{name}'{hint}; it has {', '.join(names[:12])}")
