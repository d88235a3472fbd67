"""Text classification: one sentence or a pair, two or more classes."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pewb.errors import InputError, nearest
from pewb.tasks.splits import share_of, text_key
from pewb.tasks.tables import Format, column, files_of, read_table

if TYPE_CHECKING:
    import pandas

VALIDATION_SHARE = 0.1
"""Share of the training examples that validates where no validation file is given."""


class Binarize(BaseModel):
    """Make two classes of a rating: above `threshold` the second, below it the first, within `margin` of it neither."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    threshold: float = 0.0
    margin: float = Field(default=0.0, ge=0)


class Shares(BaseModel):
    """How one file is divided, in parts of their sum."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    train: float = Field(default=80, gt=0)
    validation: float = Field(default=10, gt=0)
    test: float = Field(default=10, gt=0)


class TextClassification(BaseModel):
    """The keys of a `task` table with `kind = "text_classification"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["text_classification"] = "text_classification"
    dataset: str | None = None
    """A data set on the hub ("org/name"); the files below are then inside it."""
    data: str | None = None
    """One file with everything, divided by a hash of the text (see `split`)."""
    train: str | None = None
    validation: str | None = None
    """Left out: a tenth of the training examples, by a hash of the text."""
    test: str | None = None
    text: str | int | list[str | int] = "text"
    """The column with the text, or two columns for pairs."""
    label: str | int = "label"
    labels: list[str] | None = Field(default=None, min_length=2)
    """Names of the classes; for labels that are numbers, in the order 0, 1, …"""
    header: bool = True
    """Whether CSV and TSV files begin with the columns' names; without, columns are numbered from 0."""
    format: Format | None = None
    """Left out: told by the file's ending."""
    binarize: Binarize | None = None
    split: Shares | None = None

    @model_validator(mode="after")
    def _one_way_to_name_files(self) -> TextClassification:
        if self.data and (self.train or self.test or self.validation):
            raise ValueError("give either data (one file, divided) or train and test, not both")
        if not self.data and not (self.train and self.test):
            missing = "test" if self.train else "train"
            raise ValueError(
                f"'{missing}' is missing: give train and test files, or one file as data to have it divided"
                + (f" (paths or patterns inside '{self.dataset}')" if self.dataset else "")
            )
        if self.split and not self.data:
            raise ValueError("split divides one file: name that file as data, or leave split out")
        return self

    @model_validator(mode="after")
    def _columns_and_classes_make_sense(self) -> TextClassification:
        if not 1 <= len(self.text_columns) <= 2:
            raise ValueError(f"text names {len(self.text_columns)} columns; give one, or two for pairs")
        if self.label in self.text_columns:
            raise ValueError(f"text and label are the same column, '{self.label}'")
        if self.labels and len(set(self.labels)) < len(self.labels):
            raise ValueError("labels names a class twice")
        if self.binarize and self.labels and len(self.labels) != 2:
            raise ValueError(f"binarize makes two classes, but labels names {len(self.labels)}")
        return self

    @property
    def text_columns(self) -> list[str | int]:
        """The one or two columns with text."""
        return self.text if isinstance(self.text, list) else [self.text]

    @property
    def main_metric(self) -> str:
        """The metric that is validated on and ranked by."""
        return "accuracy"


@dataclass(frozen=True)
class Split:
    """The examples of one split, in the order of the file."""

    texts: list[tuple[str, ...]] = field(default_factory=list)
    """One or two texts for each example."""
    labels: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    def limited(self, count: int | None) -> Split:
        """Return at most `count` examples, chosen by a hash of their text."""
        if count is None or count >= len(self):
            return self
        chosen = sorted(sorted(range(len(self)), key=lambda index: text_key(self.texts[index]))[:count])
        return Split([self.texts[index] for index in chosen], [self.labels[index] for index in chosen])


@dataclass(frozen=True)
class Examples:
    """Everything that a text classification run reads."""

    labels: list[str]
    train: Split
    validation: Split
    test: Split
    warnings: list[str]

    def facts(self) -> dict[str, Any]:
        """Return what a record keeps of the data."""
        content = json.dumps([self.test.texts, [self.labels[label] for label in self.test.labels]], ensure_ascii=False)
        return {
            "labels": self.labels,
            "train_examples": len(self.train),
            "validation_examples": len(self.validation),
            "test_examples": len(self.test),
            "majority_share": max(Counter(self.test.labels).values()) / len(self.test),
            "test_digest": hashlib.sha256(content.encode()).hexdigest(),
        }


def read_examples(task: TextClassification, folder: Path, limits: dict[str, int | None]) -> Examples:
    """Read and check the task's files below `folder`.

    Args:
        task: the task's keys.
        folder: what relative paths are taken from.
        limits: at most so many examples of `train`, `validation`, `test` (None: all).

    Raises:
        InputError: a file or column is missing, a split is empty, labels make no classes.
    """
    if task.data:
        whole = _read(task, folder, "data")
        shares = task.split or Shares()
        total = shares.train + shares.validation + shares.test
        first, second = shares.train / total, (shares.train + shares.validation) / total
        parts = [_part(whole, 0, first), _part(whole, first, second), _part(whole, second, 1)]
        train, validation, test = parts
    else:
        train, test = _read(task, folder, "train"), _read(task, folder, "test")
        if task.validation:
            validation = _read(task, folder, "validation")
        else:
            train, validation = _part(train, 0, 1 - VALIDATION_SHARE), _part(train, 1 - VALIDATION_SHARE, 1)
    raw = {"train": train, "validation": validation, "test": test}
    for name, part in raw.items():
        if not part:
            raise InputError(_why_empty(task, name))
    names, index = _classes(task, raw)
    splits = {
        name: Split([texts for texts, _ in part], [index[label] for _, label in part]).limited(limits.get(name))
        for name, part in raw.items()
    }
    if len(set(splits["train"].labels)) < 2:
        only = names[splits["train"].labels[0]]
        raise InputError(
            f"task.label: every one of the {len(splits['train'])} training examples has the label '{only}';"
            " classification needs at least two classes: give more examples, or raise limit.train if it is set"
        )
    return Examples(names, **splits, warnings=_warnings(splits, names))


_Rows = list[tuple[tuple[str, ...], str]]


def _part(rows: _Rows, low: float, high: float) -> _Rows:
    return [row for row in rows if low <= share_of(text_key(row[0])) < high]


def _why_empty(task: TextClassification, name: str) -> str:
    key = "data" if task.data else name
    if task.binarize:
        return f"task.{key}: the {name} split is empty; does task.binarize leave anything of it?"
    if task.data or (name == "validation" and not task.validation):
        return (
            f"task: the {name} split is empty: too few different texts to divide by their hash;"
            " give more examples, or train, validation and test as files of their own"
        )
    return f"task.{key}: the {name} split is empty; name a file with examples"


def _read(task: TextClassification, folder: Path, key: str) -> _Rows:
    """Return the (texts, label) rows of the file that the task's `key` names."""
    pattern = getattr(task, key)
    table = read_table(files_of(folder, pattern, key), task.format, task.header)
    texts = [_filled(column(table, name, "text", pattern), "text", pattern) for name in task.text_columns]
    labels = _filled(column(table, task.label, "label", pattern), "label", pattern)
    if task.binarize:
        texts, labels = _binarized(task.binarize, texts, labels, pattern)
    rows = zip(*(series.astype(str) for series in texts), strict=True)
    return list(zip(rows, _label_names(labels, pattern), strict=True))


def _filled(series: pandas.Series, key: str, path: str) -> pandas.Series:
    """Return `series` if each of its values is a text or a number."""
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


def _binarized(
    rule: Binarize, texts: list[pandas.Series], ratings: pandas.Series, path: str
) -> tuple[list[pandas.Series], pandas.Series]:
    """Turn ratings into the labels 0 and 1 and leave out what is too near the threshold."""
    import pandas

    numbers = pandas.to_numeric(ratings, errors="coerce")
    if numbers.isna().any():
        raise InputError(
            f"task.binarize: {path} has ratings that are no numbers, such as '{ratings[numbers.isna()].iloc[0]}';"
            " leave binarize out, or mend them (header = true if that is the file's header line)"
        )
    clear = ((numbers - rule.threshold).abs() >= rule.margin) & (numbers != rule.threshold)
    return [series[clear] for series in texts], (numbers[clear] > rule.threshold).astype(int)


def _label_names(labels: pandas.Series, path: str) -> list[str]:
    """Return labels as text: whole numbers without a decimal point, false and true of JSON and Parquet as 0 and 1."""
    import pandas

    numbers = pandas.to_numeric(labels, errors="coerce")
    if numbers.notna().all():
        broken = numbers % 1 != 0
        if broken.any():
            raise InputError(
                f"task.label: {path} has labels such as {labels[broken].iloc[0]}, which are no classes;"
                " task.binarize makes two classes of a rating"
            )
        return [_whole(label) for label in labels]
    if len(numbers) > 1 and not isinstance(labels.name, str) and numbers.iloc[1:].notna().all():
        raise InputError(
            f"task.label: {path} has the label '{labels.iloc[0]}' in its first row and numbers in all others;"
            " if that is its header line, set header = true"
        )
    return [str(label).strip() for label in labels]


def _whole(label: Any) -> str:
    """Return a whole number as text, "1.0" as "1"; "01" stays as it is, for it may be another class than "1"."""
    return re.sub(r"\.0*$", "", label.strip()) if isinstance(label, str) else str(int(label))


def _classes(task: TextClassification, raw: dict[str, _Rows]) -> tuple[list[str], dict[str, int]]:
    """Return the classes' names, and from a label as it is in the files to its class's number."""
    seen = {name: {label for _, label in rows} for name, rows in raw.items()}
    for name, labels in seen.items():
        if labels == {"-1"}:
            raise InputError(
                f"task.{name}: every {name} label is -1, so they are hidden (as GLUE's test labels are);"
                " name a file with labels, such as the validation file"
            )
    names = task.labels or sorted(seen["train"], key=_numbers_first)
    if len(names) > max(20, len(raw["train"]) // 4):
        raise InputError(
            f"task.label: '{task.label}' has {len(names)} different values in {len(raw['train'])} examples;"
            " it does not look like a label: name another column"
        )
    numbers = [str(number) for number in range(len(names))]
    numbered = task.labels and not seen["train"] <= set(names) and seen["train"] <= set(numbers)
    index = {name: number for number, name in enumerate(numbers if numbered else names)}
    for name, labels in seen.items():
        if unknown := sorted(labels - set(index)):
            where = "task.labels" if task.labels else "the training examples"
            raise InputError(
                f"task.label: the {name} split has the label '{unknown[0]}', which {where} do not have"
                f"{nearest(unknown[0], list(index))}; they have {', '.join(list(index)[:12])}"
            )
    return list(names), index


def _numbers_first(label: str) -> tuple[bool, int, str]:
    is_number = label.lstrip("-").isdecimal()
    return (not is_number, int(label) if is_number else 0, label)


def _warnings(splits: dict[str, Split], names: list[str]) -> list[str]:
    """Return what a user should know of the data before believing a result."""
    told = []
    trained = {text_key(texts) for texts in splits["train"].texts}
    shared = sum(text_key(texts) in trained for texts in splits["test"].texts)
    if shared:
        told.append(f"{shared} of {len(splits['test'])} test examples have the same text as a training example")
    for split, told_as in (("train", "training"), ("test", "test")):
        missing = [name for number, name in enumerate(names) if number not in set(splits[split].labels)]
        if missing:
            told.append(f"the {told_as} split has no example of {', '.join(missing)}")
    return told
