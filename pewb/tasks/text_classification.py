"""Text classification: one text or a pair, and one class of several, or any number of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pewb.errors import InputError
from pewb.tasks.augment import altered_text
from pewb.tasks.classes import missing_classes, numbered_classes
from pewb.tasks.examples import Examples, Split, shared_texts
from pewb.tasks.family import WRITTEN_TEXTS, Rows, TaskFamily
from pewb.tasks.model_heads import SEQUENCE_CLASSIFICATION, ModelHead
from pewb.tasks.tables import column, filled
from pewb.tasks.templates import text_columns

if TYPE_CHECKING:
    import random

    import pandas

    from pewb.tasks.augment import Alteration


class Binarize(BaseModel):
    """Make two classes of a rating: above `threshold` the second, below it the first, within `margin` of it neither."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    threshold: float = 0.0
    """Ratings above it are the second class, below it the first."""
    margin: float = Field(default=0.0, ge=0)
    """Ratings so near to the threshold are left out."""


class TextClassification(TaskFamily):
    """The keys of a `task` table with `kind = "text_classification"`."""

    kind: Literal["text_classification"] = "text_classification"
    text: str | int | list[str | int] = "text"
    """The column with the text, or two columns for pairs; or texts with columns in braces."""
    label: str | int | Annotated[list[str | int], Field(min_length=2)] = "label"
    """The column with the class; or, where a text may have several, a column of 0 and 1 for each class."""
    labels: list[str] | None = Field(default=None, min_length=2)
    """Names of the classes; for labels that are numbers, in the order 0, 1, …"""
    multi_label: bool | None = None
    """A text may have several of the classes, or none: `label` holds lists, or names with `separator` between them."""
    separator: str | None = Field(default=None, min_length=1)
    """What stands between the names of several classes; left out: a comma."""
    binarize: Binarize | None = None
    """Two classes out of a rating."""
    metric: Literal["accuracy", "f1", "matthews_correlation", "f1_micro", "f1_macro"] | None = None
    """What is validated on and ranked by; left out: accuracy, or, where a text may have several classes, f1_micro."""

    model_head: ClassVar[ModelHead] = SEQUENCE_CLASSIFICATION
    kept_keys: ClassVar[tuple[str, ...]] = ("metric",)
    references: ClassVar[tuple[str, ...]] = ("majority_class", "tf_idf_logistic_regression")

    @model_validator(mode="after")
    def _columns_and_classes_make_sense(self) -> TextClassification:
        if not 1 <= len(self.text_columns) <= 2:
            raise ValueError(f"text names {len(self.text_columns)} columns; give one, or two for pairs")
        if both := [name for name in self._label_columns if name in self.text_columns]:
            raise ValueError(f"text and label are the same column, '{both[0]}'")
        if self.labels and len(set(self.labels)) < len(self.labels):
            raise ValueError("labels names a class twice")
        if self.binarize and self.labels and len(self.labels) != 2:
            raise ValueError(f"binarize makes two classes, but labels names {len(self.labels)}")
        if isinstance(self.label, list):
            if self.multi_label is False or self.separator:
                raise ValueError("label names a column for each class, so a text may have several; leave the rest out")
            if self.labels and len(self.labels) != len(self.label):
                raise ValueError(f"label names {len(self.label)} columns, and labels {len(self.labels)} classes")
        if self.separator and not self.multi_label:
            raise ValueError("separator stands between several classes of a text: set multi_label = true")
        ours = ("accuracy", "f1_micro", "f1_macro") if self.has_sets else ("accuracy", "f1", "matthews_correlation")
        if self.metric and self.metric not in ours:
            raise ValueError(f"metric: '{self.metric}' is not of such a task; allowed: {', '.join(ours)}")
        if self.binarize and self.has_sets:
            raise ValueError("binarize makes one class of a rating; leave it or multi_label out")
        return self

    @property
    def text_columns(self) -> list[str | int]:
        """The one or two columns with text."""
        return self.text if isinstance(self.text, list) else [self.text]

    @property
    def _label_columns(self) -> list[str | int]:
        return self.label if isinstance(self.label, list) else [self.label]

    @property
    def has_sets(self) -> bool:
        """Whether a text may have several classes, or none."""
        return bool(self.multi_label) or isinstance(self.label, list)

    @property
    def form(self) -> str:
        """One class, or any number of them."""
        return "multi_label" if self.has_sets else "text_classification"

    @property
    def training_options(self) -> tuple[str, ...]:
        """Classes may weigh more or less; and where a text has one, it may be smoothed."""
        return ("class_weights",) if self.has_sets else ("class_weights", "label_smoothing")

    @property
    def main_metric(self) -> str:
        """Accuracy; of sets of classes F1 over all of them (micro)."""
        return self.metric or ("f1_micro" if self.has_sets else "accuracy")

    def assumed_labels(self) -> Sequence[str] | None:
        """Return the classes, if the keys name them."""
        return self.labels or ([str(name) for name in self.label] if isinstance(self.label, list) else None)

    def rows(self, table: pandas.DataFrame, path: str) -> Rows:
        """Return the (texts, label) rows of a table, rated texts turned into classes, several classes into tuples."""
        texts = text_columns(table, self.text_columns, path)
        if self.has_sets:
            labels: list[Any] = self._sets(table, path)
        else:
            values = filled(column(table, self.label, "label", path), "label", path)  # type: ignore[arg-type]
            if self.binarize:
                texts, values = _binarized(self.binarize, texts, values, path)
            labels = _label_names(values, path)
        rows = zip(*texts, strict=True)
        return list(zip(rows, labels, strict=True))

    def _sets(self, table: pandas.DataFrame, path: str) -> list[tuple[str, ...]]:
        """Return the classes of each row."""
        columns = [column(table, name, "label", path) for name in self._label_columns]
        if len(columns) == 1:
            return [_names_in(value, self.separator or ",", path, row) for row, value in enumerate(columns[0], 1)]
        names = self.labels or [str(name) for name in self._label_columns]
        told = [_label_names(filled(one, "label", path), path) for one in columns]
        if odd := next((value for values in told for value in values if value not in ("0", "1")), None):
            raise InputError(
                f"task.label: {path} has the value '{odd}' in a column of a class; each must be 0 or 1, or name one"
                " column and set multi_label = true"
            )
        return [
            tuple(name for name, one in zip(names, row, strict=True) if one == "1") for row in zip(*told, strict=True)
        ]

    def examples(self, splits: Mapping[str, Rows], limits: Mapping[str, int | None]) -> Classified:
        """Return the examples with numbered classes (of sets, with a 0 or 1 for each), of which training must have two."""
        seen = {
            name: {one for _, label in rows for one in (label if self.has_sets else (label,))}
            for name, rows in splits.items()
        }
        told = ", ".join(map(str, self._label_columns))
        given = self.labels if not isinstance(self.label, list) else self.labels or [str(name) for name in self.label]
        names, index = numbered_classes(seen, given, len(splits["train"]), "label", told)
        parts = {
            name: Split([texts for texts, _ in rows], [self._number(label, index) for _, label in rows]).limited(
                limits.get(name), self._stratum
            )
            for name, rows in splits.items()
        }
        used = {name: _counted(split.labels) for name, split in parts.items()}
        if len(used["train"]) < 2:
            only = names[next(iter(used["train"]), 0)]
            raise InputError(
                f"task.label: every one of the {len(parts['train'])} training examples has the label '{only}';"
                " classification needs at least two classes: give more examples, or raise limit.train if it is set"
            )
        warnings = shared_texts(parts["train"], parts["test"]) + missing_classes(parts, names, used)
        if self.multi_label and max(map(sum, parts["train"].labels)) < 2:
            warnings.append(
                f"no training example has several classes; if '{max(names, key=len)}' is more than one, set task.separator"
            )
        return Classified(names, **parts, warnings=warnings)

    def _number(self, label: Any, index: Mapping[str, int]) -> int | list[int]:
        if not self.has_sets:
            return index[label]
        chosen = {index[one] for one in label}
        return [int(number in chosen) for number in range(len(index))]

    @staticmethod
    def _stratum(label: Any) -> Any:
        return tuple(label) if isinstance(label, list) else label

    def altered(
        self, texts: tuple[str, ...], label: Any, names: Sequence[str], alteration: Alteration, generator: random.Random
    ) -> tuple[tuple[str, ...], Any]:
        """Return altered texts; the label stays."""
        return tuple(altered_text(text, alteration, generator) for text in texts), label

    def written(self, texts: tuple[str, ...], label: Any, names: Sequence[str]) -> dict[str, Any]:
        """Return the texts and the class, or the list of classes."""
        return dict(zip(WRITTEN_TEXTS, texts, strict=False)) | {"label": self._told(label, names)}

    def written_keys(self, num_texts: int, names: Sequence[str]) -> dict[str, Any]:
        """Return the columns and the classes."""
        text: Any = list(WRITTEN_TEXTS) if num_texts == 2 else WRITTEN_TEXTS[0]
        return {"kind": self.kind, "text": text, "labels": list(names)} | (
            {"multi_label": True} if self.has_sets else {}
        )

    @staticmethod
    def _told(label: Any, names: Sequence[str]) -> Any:
        return names[label] if isinstance(label, int) else [name for name, one in zip(names, label, strict=True) if one]

    def why_empty(self, key: str, name: str) -> str:
        """Return why a split is empty: `binarize` may leave nothing of it."""
        if self.binarize:
            return f"task.{key}: the {name} split is empty; does task.binarize leave anything of it?"
        return super().why_empty(key, name)


@dataclass(frozen=True)
class Classified(Examples):
    """Everything that a text classification run reads."""

    def facts(self) -> dict[str, Any]:
        """Return what a record keeps of the data, the classes among it."""
        labels = [self._named(label) for label in self.test.labels]
        return super().facts() | {
            "labels": self.labels,
            "majority_share": max(_counted(self.test.labels).values(), default=0) / len(self.test),
            "test_digest": self._digest([self.test.texts, labels]),
        }

    def _named(self, label: int | list[int]) -> Any:
        if isinstance(label, int):
            return self.labels[label]
        return [name for name, one in zip(self.labels, label, strict=True) if one]


def _counted(labels: Sequence[Any]) -> Counter[int]:
    """Return how many examples have each class."""
    if labels and isinstance(labels[0], list):
        return Counter(number for label in labels for number, one in enumerate(label) if one)
    return Counter(labels)


def _names_in(value: Any, separator: str, path: str, row: int) -> tuple[str, ...]:
    """Return the classes that a cell names: a list, or text; an empty one names none."""
    import pandas
    from pandas.api.types import is_list_like

    if is_list_like(value):
        if isinstance(value, Mapping) or not all(isinstance(one, str | Real) and one == one for one in value):
            raise InputError(
                f"task.label: {path} has no list of classes in row {row}; give names, or a column for each class"
            )
        return tuple(dict.fromkeys(str(one).strip() for one in value))
    if pandas.isna(value):
        return ()
    if str(value).strip().startswith("[") and str(value).strip().endswith("]"):
        raise InputError(
            f"task.label: {path} has a list written as text in row {row}, '{str(value)[:40]}'; give JSON Lines with lists, or names"
            " with a comma between them"
        )
    return tuple(dict.fromkeys(part.strip() for part in str(value).split(separator) if part.strip()))


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
