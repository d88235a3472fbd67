"""Extractive question answering: the answer is a piece of a given text, or is not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pewb.errors import InputError
from pewb.tasks.augment import altered_text
from pewb.tasks.examples import Examples, Split, shared_texts
from pewb.tasks.family import Rows, TaskFamily
from pewb.tasks.model_heads import QUESTION_ANSWERING, ModelHead
from pewb.tasks.splits import text_key
from pewb.tasks.tables import column, filled

if TYPE_CHECKING:
    import random

    import pandas

    from pewb.tasks.augment import Alteration

Answers = list[tuple[int, str]]
"""Where each accepted answer begins in the text, in characters, and what it is; empty if the text has none."""


class ExtractiveQa(TaskFamily):
    """The keys of a `task` table with `kind = "extractive_qa"`.

    The files are SQuAD's JSON (1.1 or 2.0), or tables whose rows hold a question, a context, and a table of answers with
    `text` and `answer_start`, lists of equal length; or a list of answers, each of which is looked for in the context. A context that is too long is read in windows that overlap.
    """

    kind: Literal["extractive_qa"] = "extractive_qa"
    question: str | int = "question"
    """The column with the question."""
    context: str | int = "context"
    """The column with the text in which the answer stands."""
    answers: str | int = "answers"
    """The column with the right answers; none where there is none."""
    stride: int | None = Field(default=None, ge=0)
    """Tokens that a window shares with the one before it; left out: a third of `training.max_tokens`."""
    longest_answer: int | None = Field(default=None, ge=1)
    """Tokens; left out: 30."""

    model_head: ClassVar[ModelHead] = QUESTION_ANSWERING
    kept_keys: ClassVar[tuple[str, ...]] = ("stride", "longest_answer")

    @model_validator(mode="after")
    def _columns_make_sense(self) -> ExtractiveQa:
        columns = [self.question, self.context, self.answers]
        if len(set(columns)) < len(columns):
            raise ValueError("question, context and answers must be three columns")
        return self

    @property
    def main_metric(self) -> str:
        """F1 over the words of an answer."""
        return "f1"

    def outputs(self, labels: Sequence[str]) -> Sequence[str]:
        """Return what the head says of each token."""
        return ("start", "end")

    def altered(
        self, texts: tuple[str, ...], label: Any, names: Sequence[str], alteration: Alteration, generator: random.Random
    ) -> tuple[tuple[str, ...], Any]:
        """Return the question altered; the context stays, or its answers would move."""
        return (altered_text(texts[0], alteration, generator), *texts[1:]), label

    def written(self, texts: tuple[str, ...], label: Any, names: Sequence[str]) -> dict[str, Any]:
        """Return question, context and answers."""
        answers = {"text": [text for _, text in label], "answer_start": [start for start, _ in label]}
        return {"question": texts[0], "context": texts[1], "answers": answers}

    def split_key(self, texts: tuple[str, ...], label: Any) -> str:
        """Divide contexts as a whole, with all questions about them."""
        return text_key(texts[1:])

    def rows(self, table: pandas.DataFrame, path: str) -> Rows:
        """Return question and context of each row, and its answers."""
        texts = [
            filled(column(table, getattr(self, key), key, path), key, path).astype(str)
            for key in ("question", "context")
        ]
        answers = [
            _answers(value, path, row) for row, value in enumerate(column(table, self.answers, "answers", path), 1)
        ]
        rows: Rows = []
        for number, (question, context, told) in enumerate(zip(*texts, answers, strict=True), 1):
            found = [_placed(start, text, context) for start, text in told]
            if None in found:
                text = told[found.index(None)][1]
                raise InputError(
                    f"task.answers: {path} has the answer '{text[:60]}' in row {number}, which is not in its context; mend it"
                )
            rows.append(((question, context), found))
        return rows

    def examples(self, splits: Mapping[str, Rows], limits: Mapping[str, int | None]) -> Questions:
        """Return the examples as they are in the files."""
        parts = {
            name: Split([texts for texts, _ in rows], [answers for _, answers in rows]).limited(limits.get(name), bool)
            for name, rows in splits.items()
        }
        if not any(parts["train"].labels):
            raise InputError("task.answers: no training question has an answer; give some that have")
        return Questions([], **parts, warnings=shared_texts(parts["train"], parts["test"]))


@dataclass(frozen=True)
class Questions(Examples):
    """Everything that a question answering run reads."""

    def facts(self) -> dict[str, Any]:
        """Return what a record keeps of the data, the share of questions without an answer among it."""
        return super().facts() | {
            "unanswerable_share": self.test.labels.count([]) / len(self.test),
            "test_digest": self._digest([self.test.texts, self.test.labels]),
        }


def _answers(value: Any, path: str, row: int) -> Answers:
    """Return the answers in a cell; of one without a place the first in the context is meant."""
    from pandas.api.types import is_list_like

    if value is None or isinstance(value, str) or (isinstance(value, float) and isnan(value)):
        value = [value] if isinstance(value, str) else []
    if is_list_like(value) and not isinstance(value, Mapping) and all(isinstance(one, Mapping) for one in value):
        value = {key: [one.get(key) for one in value] for key in ("text", "answer_start")}
    if is_list_like(value) and not isinstance(value, Mapping) and all(isinstance(text, str) for text in value):
        return [(0, text) for text in value if text.strip()]
    if isinstance(value, Mapping) and {"text", "answer_start"} <= set(value):
        texts, starts = (_as_list(value[key]) for key in ("text", "answer_start"))
        are_places = all(isinstance(start, Integral) and int(start) >= 0 for start in starts)
        if len(texts) == len(starts) and are_places and all(isinstance(text, str) for text in texts):
            return [(int(start), text) for start, text in zip(starts, texts, strict=True) if text.strip()]
    raise InputError(
        f"task.answers: {path} has no table or list of answers in row {row}; give JSON Lines or Parquet with"
        ' {"text": […], "answer_start": […]}, or SQuAD\'s own JSON (format = "squad")'
    )


def _as_list(value: Any) -> list[Any]:
    """Return the values of a cell that holds a list, or one value, or none."""
    from pandas.api.types import is_list_like

    return list(value) if is_list_like(value) else [] if value is None else [value]


def _placed(start: int, text: str, context: str) -> tuple[int, str] | None:
    """Return the answer where it is in the context, nearest to where it is said to be; None if it is not."""
    if context[start : start + len(text)] == text:
        return start, text
    places = [context.find(text, start), context.rfind(text, 0, start + len(text))]
    found = [place for place in places if place >= 0]
    return (min(found, key=lambda place: abs(place - start)), text) if found else None
