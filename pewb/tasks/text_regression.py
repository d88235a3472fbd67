"""Text regression: a number for one text, or for a pair, such as how alike two sentences are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from pewb.errors import InputError
from pewb.tasks.augment import altered_text
from pewb.tasks.examples import Examples, Split, shared_texts
from pewb.tasks.family import WRITTEN_TEXTS, Rows, TaskFamily
from pewb.tasks.model_heads import SEQUENCE_CLASSIFICATION, ModelHead
from pewb.tasks.tables import column, filled
from pewb.tasks.templates import text_columns

if TYPE_CHECKING:
    import random

    import pandas

    from pewb.tasks.augment import Alteration


class TextRegression(TaskFamily):
    """The keys of a `task` table with `kind = "text_regression"`.

    The loss is the mean squared error of numbers that are scaled to mean 0 and deviation 1 over the training examples;
    what is reported is on the files' own scale.
    """

    kind: Literal["text_regression"] = "text_regression"
    text: str | int | list[str | int] = "text"
    """The column with the text, or two columns for pairs."""
    label: str | int = "label"
    """The column with the number."""

    model_head: ClassVar[ModelHead] = SEQUENCE_CLASSIFICATION
    references: ClassVar[tuple[str, ...]] = ("mean", "tf_idf_ridge")

    @model_validator(mode="after")
    def _columns_make_sense(self) -> TextRegression:
        if not 1 <= len(self.text_columns) <= 2:
            raise ValueError(f"text names {len(self.text_columns)} columns; give one, or two for pairs")
        if self.label in self.text_columns:
            raise ValueError(f"text and label are the same column, '{self.label}'")
        return self

    @property
    def text_columns(self) -> list[str | int]:
        """The one or two columns with text."""
        return self.text if isinstance(self.text, list) else [self.text]

    @property
    def main_metric(self) -> str:
        """Pearson's correlation."""
        return "pearson"

    def outputs(self, labels: Sequence[str]) -> Sequence[str]:
        """Return the one thing that the head gives."""
        return ("number",)

    def altered(
        self, texts: tuple[str, ...], label: Any, names: Sequence[str], alteration: Alteration, generator: random.Random
    ) -> tuple[tuple[str, ...], Any]:
        """Return altered texts; the label stays."""
        return tuple(altered_text(text, alteration, generator) for text in texts), label

    def written(self, texts: tuple[str, ...], label: Any, names: Sequence[str]) -> dict[str, Any]:
        """Return the texts and the number."""
        return dict(zip(WRITTEN_TEXTS, texts, strict=False)) | {"label": label}

    def written_keys(self, num_texts: int, names: Sequence[str]) -> dict[str, Any]:
        """Return the columns."""
        text: Any = list(WRITTEN_TEXTS) if num_texts == 2 else WRITTEN_TEXTS[0]
        return {"kind": self.kind, "text": text}

    def rows(self, table: pandas.DataFrame, path: str) -> Rows:
        """Return the (texts, number) rows of a table."""
        import pandas

        texts = text_columns(table, self.text_columns, path)
        labels = filled(column(table, self.label, "label", path), "label", path)
        numbers = pandas.to_numeric(labels, errors="coerce")
        if numbers.isna().any():
            raise InputError(
                f"task.label: {path} has '{labels[numbers.isna()].iloc[0]}', which is no number; name a column of numbers"
                ' (header = true if that is the file\'s header line), or use kind = "text_classification"'
            )
        if not numbers.abs().lt(float("inf")).all():
            raise InputError(f"task.label: {path} has an infinite number; remove its row")
        rows = zip(*texts, strict=True)
        return list(zip(rows, map(float, numbers), strict=True))

    def examples(self, splits: Mapping[str, Rows], limits: Mapping[str, int | None]) -> Rated:
        """Return the examples with their numbers, which must not all be the same."""
        parts = {
            name: Split([texts for texts, _ in rows], [number for _, number in rows]).limited(limits.get(name))
            for name, rows in splits.items()
        }
        for name in ("train", "test"):
            if len(set(parts[name].labels)) < 2:
                raise InputError(
                    f"task.label: every one of the {len(parts[name])} examples of the {name} split has the number"
                    f" {parts[name].labels[0]:g}; give examples that differ, or raise limit.{name} if it is set"
                )
        return Rated([], **parts, warnings=shared_texts(parts["train"], parts["test"]))


@dataclass(frozen=True)
class Rated(Examples):
    """Everything that a text regression run reads."""

    def facts(self) -> dict[str, Any]:
        """Return what a record keeps of the data, the scale of the training numbers among it."""
        mean, deviation = scale_of(self.train.labels)
        return super().facts() | {
            "mean": mean,
            "deviation": deviation,
            "test_digest": self._digest([self.test.texts, self.test.labels]),
        }


def scale_of(numbers: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the standard deviation of numbers that are not all the same."""
    return fmean(numbers), pstdev(numbers)
