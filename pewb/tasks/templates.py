"""Texts made of several columns.

"Question: {question}" takes the column `question` of each row, {text.en} a field
of `text`, and {question|query} the first of both columns that there is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pewb.errors import InputError
from pewb.tasks.tables import column, filled

if TYPE_CHECKING:
    import pandas

_PLACE = re.compile(r"\{([^{}\n]+)\}")


def is_template(name: str | int | None) -> bool:
    """Return whether `name` is a text with columns' names in braces, not the name of one column."""
    return isinstance(name, str) and _PLACE.search(name) is not None


def texts_of(table: pandas.DataFrame, name: str | int, key: str, path: str) -> list[str]:
    """Return the text of each row: of the column `name`, or of the template `name` filled in.

    In a template a cell may be empty; what stands between it and the next is left out with it.

    Raises:
        InputError: a column is missing, or a row has no text.
    """
    from pandas.api.types import is_list_like

    if not is_template(name):
        return [str(value) for value in filled(column(table, name, key, path), key, path)]
    template = str(name)
    columns = {place: _cells(table, place, key, path) for place in dict.fromkeys(_PLACE.findall(template))}
    for place, series in columns.items():
        nested = series.map(is_list_like).to_numpy(dtype=bool)
        if nested.any():
            raise InputError(
                f"task.{key}: {path} holds no text in '{place}', but lists or tables (the first in row {nested.argmax() + 1});"
                " name a field of a table as {column.field}"
            )
    cells = [_as_text(series) for series in columns.values()]
    told = [_filled_in(template, dict(zip(columns, values, strict=True))) for values in zip(*cells, strict=True)]
    if bare := next((number for number, text in enumerate(told, 1) if not text.strip()), None):
        raise InputError(f"task.{key}: {path} has nothing to fill into '{template}' in row {bare}; remove the row")
    return told


def text_columns(table: pandas.DataFrame, names: Sequence[str | int], path: str) -> list[pandas.Series]:
    """Return the texts that the recipe's key `text` names, one series for each of `names`."""
    import pandas

    return [pandas.Series(texts_of(table, name, "text", path), index=table.index, dtype=object) for name in names]


def _filled_in(template: str, values: Mapping[str, str]) -> str:
    for place, value in values.items():
        if not value.strip():
            template = re.sub(rf"\{{{re.escape(place)}\}}\s*", "", template)
    return _PLACE.sub(lambda match: values[match[1]], template)


def _as_text(series: pandas.Series) -> pandas.Series:
    """Return a column as texts, empty where it is; whole numbers beside empty cells are read with a decimal point."""
    from pandas.api.types import is_float_dtype

    present = series.notna()
    if is_float_dtype(series.dtype) and not present.all() and (series[present] % 1 == 0).all():
        series = series.astype("Int64").astype(object)
    return series.where(present, "").astype(str)


def _cells(table: pandas.DataFrame, place: str, key: str, path: str) -> pandas.Series:
    """Return the column `place`; "column.field" is a field of a column that holds tables."""
    if "|" in place:
        there = [name for name in place.split("|") if name in table.columns]
        return _cells(table, there[0] if there else place.split("|")[0], key, path)
    name, dot, part = place.partition(".")
    if not dot or place in table.columns:
        return column(table, int(place) if place.isdecimal() else place, key, path)
    found = column(table, name, key, path).map(lambda value: value.get(part) if isinstance(value, Mapping) else None)
    if found.isna().all():
        raise InputError(f"task.{key}: {path} has no field '{part}' in its column '{name}'")
    return found
