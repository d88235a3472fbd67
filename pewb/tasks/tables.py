"""Tables in files: CSV, TSV, JSON Lines, Parquet and CoNLL columns, with or without a header line."""

from __future__ import annotations

import codecs
import csv
import json
import re
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pewb.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas

Format = Literal["csv", "tsv", "jsonl", "parquet", "conll", "squad"]

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".conll": "conll",
    ".bio": "conll",
    ".iob": "conll",
}
_SQUAD_BEGINS_WITHIN = 10_000
"""Characters in which a file of SQuAD's form names its first paragraphs."""
_COMMENT = re.compile(r"#\s+(\S+\s*=|(id|text|sent_id|newdoc|newpar)\b)")
"""How a line before a CoNLL sentence begins that is none of its words."""


def files_of(folder: Path, pattern: str, key: str) -> list[Path]:
    """Return the files that `pattern` (a path or a glob) names below `folder`.

    Raises:
        InputError: there are none.
    """
    direct = folder / pattern
    if direct.is_file():
        return [direct]
    # Path.glob takes no absolute pattern, and fails on some others.
    found = [folder / name for name in sorted(glob(pattern, root_dir=folder, recursive=True))]  # noqa: PTH207
    files = [path for path in found if path.is_file()]
    if not files:
        near = [path.name for path in direct.parent.iterdir() if path.is_file()] if direct.parent.is_dir() else []
        hint = nearest(Path(pattern).name, near) or "; give a file, or a pattern such as 'data/*.csv'"
        raise InputError(f"task.{key}: no file '{pattern}' in {folder.resolve()}{hint}")
    return files


def read_table(paths: list[Path], format: Format | None, header: bool) -> pandas.DataFrame:
    """Read `paths`, all of one shape, into one table; without a header line its columns are numbered from 0.

    TSV is read without quoting, as the format is defined; CSV with it.

    Raises:
        InputError: the format is unknown or a file is not what its name says.
    """
    import pandas

    tables = [_read_file(path, format, header) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if list(table.columns) != list(tables[0].columns):
            raise InputError(
                f"{path}: its columns ({_listed(table)}) are not those of {paths[0]} ({_listed(tables[0])});"
                " files that are read as one need the same columns"
            )
    return tables[0] if len(tables) == 1 else pandas.concat(tables, ignore_index=True)


def _read_file(path: Path, format: Format | None, header: bool) -> pandas.DataFrame:
    import pandas

    kind = format or _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            f"{path}: '{path.suffix}' is not a table pewb reads; use .csv, .tsv, .jsonl, .parquet or .conll, or set task.format"
        )
    if not path.stat().st_size:
        raise InputError(f"{path} is empty; name a file with examples")
    try:
        if kind == "parquet":
            return pandas.read_parquet(path)
        if kind == "jsonl":
            return _read_json(path)
        if kind == "conll":
            return _read_conll(path)
        if kind == "squad":
            return _read_squad(path)
        return _read_lines(path, kind, header)
    except UnicodeDecodeError as error:
        likely = "utf-16" if error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "latin1"
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.object[error.start]:#x} at {error.start}); save it as UTF-8,"
            f" for example with: iconv -f {likely} -t utf-8 {path.name}"
        ) from None
    except (ValueError, OSError, AttributeError) as error:
        raise InputError(
            f"{path} can't be read as {kind}: {str(error).strip()}; mend the file or set task.format"
        ) from None


def _read_json(path: Path) -> pandas.DataFrame:
    import pandas

    content = path.read_text(encoding="utf-8-sig")
    if _is_squad(content):
        return _read_squad(path)
    is_array = content[:64].lstrip().startswith("[")
    table = pandas.read_json(path, lines=not is_array, dtype=False, convert_axes=False, encoding="utf-8-sig")
    if not all(isinstance(name, str) for name in table.columns):
        raise ValueError("its rows are no objects with named fields")
    return table


def _is_squad(content: str) -> bool:
    """Return whether JSON is one object of SQuAD's form; JSON Lines, whose rows may have paragraphs too, are several."""
    if not content.lstrip().startswith("{") or '"paragraphs"' not in content[:_SQUAD_BEGINS_WITHIN]:
        return False
    try:
        return "data" in json.loads(content)
    except ValueError:
        return False


def _read_conll(path: Path) -> pandas.DataFrame:
    """Return one row for each sentence, whose columns, numbered from 0, hold the lists of what stands in the file's columns.

    Fields are separated by tabs, or, where some line has none, by tabs and spaces; an empty line, or one that begins a
    document, ends a sentence, and a comment may stand before it.
    """
    import pandas

    sentences: list[list[list[str]]] = [[]]
    width = 0
    lines = [line.strip("\r \t") for line in path.read_text(encoding="utf-8-sig").split("\n")]
    told = [line for line in lines if line and not line.startswith(("-DOCSTART-", "# "))]
    has_tabs = bool(told) and all("\t" in line for line in told)
    separator = re.compile("\t+" if has_tabs else "[ \t]+")
    for number, line in enumerate(lines, 1):
        begins = not sentences[-1] and line.startswith("# ")
        if begins and (_COMMENT.match(line) or (has_tabs and "\t" not in line)):
            continue
        fields = separator.split(line) if line else []
        if not fields or fields[0] == "-DOCSTART-":
            sentences.append([])
            continue
        width = width or len(fields)
        if len(fields) != width:
            comment = (
                "; if it is a comment, remove it"
                if "#" in (line[:1], sentences[-1][0][0][:1] if sentences[-1] else "")
                else ""
            )
            raise ValueError(f"line {number} has {len(fields)} columns, and the first has {width}{comment}")
        sentences[-1].append(fields)
    rows = [list(map(list, zip(*sentence, strict=True))) for sentence in sentences if sentence]
    return pandas.DataFrame(rows, columns=range(width))


def _read_squad(path: Path) -> pandas.DataFrame:
    """Return one row for each question of a file in SQuAD's form (1.1 or 2.0), with the columns of its flat form."""
    import pandas

    content = json.loads(path.read_text(encoding="utf-8-sig"))
    try:
        rows = [
            (question["question"], paragraph["context"], _flat_answers(question))
            for article in content["data"]
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is not of SQuAD's form: {error} is missing") from None
    return pandas.DataFrame(rows, columns=["question", "context", "answers"])


def _flat_answers(question: dict[str, Any]) -> dict[str, list[Any]]:
    answers = [] if question.get("is_impossible") else question["answers"]
    return {key: [answer[key] for answer in answers] for key in ("text", "answer_start")}


def _read_lines(path: Path, kind: Format, header: bool) -> pandas.DataFrame:
    """Read a CSV or TSV file; a line with more fields than the first is an error, with fewer it has gaps."""
    import pandas

    table: pandas.DataFrame = pandas.read_csv(
        path,
        sep="," if kind == "csv" else "\t",
        quoting=csv.QUOTE_MINIMAL if kind == "csv" else csv.QUOTE_NONE,
        header=None,
        dtype=object,
        keep_default_na=False,
        na_values=[""],
        encoding="utf-8-sig",
    )
    if not header:
        return table
    names = ["" if pandas.isna(name) else str(name).strip() for name in table.iloc[0]]
    return table.iloc[1:].set_axis(names, axis=1).reset_index(drop=True)


def column(table: pandas.DataFrame, name: str | int, key: str, path: str) -> pandas.Series:
    """Return the column that the recipe's `key` names, by its name or its number.

    Raises:
        InputError: there is no such column, or more than one.
    """
    matches = [number for number, other in enumerate(table.columns) if name in (other, number)]
    if len(matches) == 1:
        return table.iloc[:, matches[0]]
    if matches:
        raise InputError(f"task.{key}: {path} has {len(matches)} columns '{name}'; give the number of one, from 0")
    names = [other for other in table.columns if isinstance(other, str)]
    if not names:
        raise InputError(
            f"task.{key}: {path} has no column '{name}': with header = false columns have numbers,"
            f" 0 to {len(table.columns) - 1}"
        )
    raise InputError(
        f"task.{key}: {path} has no column '{name}'{_why_missing(str(name), names)}; it has {_listed(table)}"
    )


def filled(series: pandas.Series, key: str, path: str) -> pandas.Series:
    """Return `series`, the column of the recipe's `key`, if each of its values is a text or a number.

    Raises:
        InputError: some value is neither.
    """
    from pandas.api.types import is_list_like

    nested = series.map(is_list_like).to_numpy(dtype=bool)
    if nested.any():
        raise InputError(
            f"task.{key}: {path} holds lists in the column '{series.name}' (the first in row {nested.argmax() + 1});"
            " name a column with one text or number in each row"
        )
    missing = (series.isna() | (series.astype(str).str.strip() == "")).to_numpy(dtype=bool)
    if missing.any():
        raise InputError(
            f"task.{key}: {path} has {missing.sum()} rows without a {key} (the first is row {missing.argmax() + 1});"
            " fill them in or remove them"
        )
    return series


def _why_missing(name: str, names: list[str]) -> str:
    if any(other.lstrip("-").replace(".", "", 1).isdigit() for other in names):
        return "; the file seems to have no header line: set header = false and number the columns from 0"
    if len(names) == 1 and (separator := next((one for one in "\t;|" if one in names[0]), None)):
        way_out = 'set format = "tsv"' if separator == "\t" else "save it with commas"
        return f"; its columns seem to be separated by {separator!r}: {way_out}"
    return nearest(name, names)


def _listed(table: pandas.DataFrame) -> str:
    names = [str(name) if len(str(name)) <= 40 else f"{str(name)[:40]}…" for name in table.columns]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
