"""Text classification: one sentence or a pair, two or more classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pewb.errors import InputError, nearest
from pewb.tasks.examples import Examples, Split, shared_texts
from pewb.tasks.family import ModelHead, Rows, TaskFamily
from pewb.tasks.tables import column, filled

if TYPE_CHECKING:
    import pandas


class Binarize(BaseModel):
    """Make two classes of a rating: above `threshold` the second, below it the first, within `margin` of it neither."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    threshold: float = 0.0
    margin: float = Field(default=0.0, ge=0)


class TextClassification(TaskFamily):
    """The keys of a `task` table with `kind = "text_classification"`."""

    kind: Literal["text_classification"] = "text_classification"
    text: str | int | list[str | int] = "text"
    """The column with the text, or two columns for pairs."""
    label: str | int = "label"
    labels: list[str] | None = Field(default=None, min_length=2)
    """Names of the classes; for labels that are numbers, in the order 0, 1, …"""
    binarize: Binarize | None = None

    main_metric: ClassVar[str] = "accuracy"
    greater_is_better: ClassVar[bool] = True
    model_head: ClassVar[ModelHead] = "sequence_classification"
    peft_task_type: ClassVar[str] = "SEQ_CLS"
    references: ClassVar[tuple[str, ...]] = ("majority_class", "tf_idf_logistic_regression")

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

    def rows(self, table: pandas.DataFrame, path: str) -> Rows:
        """Return the (texts, label) rows of a table, rated texts turned into classes."""
        texts = [filled(column(table, name, "text", path), "text", path) for name in self.text_columns]
        labels = filled(column(table, self.label, "label", path), "label", path)
        if self.binarize:
            texts, labels = _binarized(self.binarize, texts, labels, path)
        rows = zip(*(series.astype(str) for series in texts), strict=True)
        return list(zip(rows, _label_names(labels, path), strict=True))

    def examples(self, splits: Mapping[str, Rows], limits: Mapping[str, int | None]) -> Classified:
        """Return the examples with numbered classes, of which training must have two."""
        names, index = _classes(self, splits)
        parts = {
            name: Split([texts for texts, _ in rows], [index[label] for _, label in rows]).limited(limits.get(name))
            for name, rows in splits.items()
        }
        if len(set(parts["train"].labels)) < 2:
            only = names[parts["train"].labels[0]]
            raise InputError(
                f"task.label: every one of the {len(parts['train'])} training examples has the label '{only}';"
                " classification needs at least two classes: give more examples, or raise limit.train if it is set"
            )
        return Classified(names, **parts, warnings=_warnings(parts, names))

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
        labels = [self.labels[label] for label in self.test.labels]
        return super().facts() | {
            "labels": self.labels,
            "majority_share": max(Counter(self.test.labels).values()) / len(self.test),
            "test_digest": self._digest([self.test.texts, labels]),
        }


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


def _classes(task: TextClassification, splits: Mapping[str, Rows]) -> tuple[list[str], dict[str, int]]:
    """Return the classes' names, and from a label as it is in the files to its class's number."""
    seen = {name: {label for _, label in rows} for name, rows in splits.items()}
    for name, labels in seen.items():
        if labels == {"-1"}:
            raise InputError(
                f"task.{name}: every {name} label is -1, so they are hidden (as GLUE's test labels are);"
                " name a file with labels, such as the validation file"
            )
    names = task.labels or sorted(seen["train"], key=_numbers_first)
    if len(names) > max(20, len(splits["train"]) // 4):
        raise InputError(
            f"task.label: '{task.label}' has {len(names)} different values in {len(splits['train'])} examples;"
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
    told = shared_texts(splits["train"], splits["test"])
    for split, told_as in (("train", "training"), ("test", "test")):
        missing = [name for number, name in enumerate(names) if number not in set(splits[split].labels)]
        if missing:
            told.append(f"the {told_as} split has no example of {', '.join(missing)}")
    return told
