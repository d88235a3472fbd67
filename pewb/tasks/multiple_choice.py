"""Multiple choice: of several continuations of a prompt one is right, and a language model finds it the likeliest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from pewb.errors import InputError
from pewb.tasks.augment import altered_text
from pewb.tasks.examples import Examples, Split, shared_texts
from pewb.tasks.family import Rows, TaskFamily
from pewb.tasks.model_heads import CAUSAL_LM, ModelHead
from pewb.tasks.tables import column, filled
from pewb.tasks.templates import texts_of

if TYPE_CHECKING:
    import random

    import pandas

    from pewb.tasks.augment import Alteration


class MultipleChoice(TaskFamily):
    """The keys of a `task` table with `kind = "multiple_choice"`.

    Training learns to continue the prompt with the right choice; the answer is the choice that is the likeliest, and, for
    choices of unlike lengths, the likeliest per byte (`accuracy_normalised`).
    """

    kind: Literal["multiple_choice"] = "multiple_choice"
    prompt: str | int = "prompt"
    choices: str | int | list[str | int] = "choices"
    """The column with lists of choices (or with tables of `text` and `label`, as ARC has them), or a column for each."""
    label: str | int = "label"
    """The column with the right one: its number, from 0; or its letter; or what it says."""

    model_head: ClassVar[ModelHead] = CAUSAL_LM
    references: ClassVar[tuple[str, ...]] = ("random_choice",)

    @model_validator(mode="after")
    def _columns_make_sense(self) -> MultipleChoice:
        choices = self.choices if isinstance(self.choices, list) else [self.choices]
        columns = [self.prompt, *choices, self.label]
        if len(set(columns)) < len(columns):
            raise ValueError("prompt, choices and label must be different columns")
        if isinstance(self.choices, list) and len(self.choices) < 2:
            raise ValueError("choices names one column; give a column for each choice, or the name of one with lists")
        return self

    @property
    def main_metric(self) -> str:
        """Accuracy by the likelihood per byte."""
        return "accuracy_normalised"

    def altered(
        self, texts: tuple[str, ...], label: Any, names: Sequence[str], alteration: Alteration, generator: random.Random
    ) -> tuple[tuple[str, ...], Any]:
        """Return the prompt altered; the choices stay."""
        return (altered_text(texts[0], alteration, generator), *texts[1:]), label

    def written(self, texts: tuple[str, ...], label: Any, names: Sequence[str]) -> dict[str, Any]:
        """Return prompt, choices and the number of the right one."""
        return {"prompt": texts[0], "choices": list(texts[1:]), "label": label}

    def rows(self, table: pandas.DataFrame, path: str) -> Rows:
        """Return the prompt and the choices of each row, and the number of the right one."""
        prompts = texts_of(table, self.prompt, "prompt", path)
        labels = filled(column(table, self.label, "label", path), "label", path).astype(str)
        rows: Rows = []
        for number, (prompt, (names, choices), label) in enumerate(
            zip(prompts, self._choices(table, path), labels, strict=True), 1
        ):
            if len(choices) < 2 or not all(choice.strip() for choice in choices):
                raise InputError(f"task.choices: {path} has fewer than two choices in row {number}, or an empty one")
            rows.append(((prompt, *choices), _right_one(label.strip(), names, choices, path, number)))
        return rows

    def _choices(self, table: pandas.DataFrame, path: str) -> list[tuple[list[str], list[str]]]:
        """Return the names of the choices, and the choices, of each row."""
        from pandas.api.types import is_list_like

        if isinstance(self.choices, list):
            columns = [
                filled(column(table, name, "choices", path), "choices", path).astype(str) for name in self.choices
            ]
            return [(_letters(len(row)), list(row)) for row in zip(*columns, strict=True)]
        found = []
        for number, value in enumerate(column(table, self.choices, "choices", path), 1):
            if isinstance(value, Mapping) and "text" in value:
                texts = [str(one) for one in value["text"]]
                names = [str(one) for one in value["label"]] if "label" in value else _letters(len(texts))
            elif is_list_like(value) and not isinstance(value, Mapping):
                texts = [str(one) for one in value]
                names = _letters(len(texts))
            else:
                raise InputError(
                    f"task.choices: {path} has no list of choices in row {number}; give JSON Lines or Parquet with lists,"
                    ' or name a column for each choice: choices = ["a", "b"]'
                )
            found.append((names, texts))
        return found

    def examples(self, splits: Mapping[str, Rows], limits: Mapping[str, int | None]) -> Choices:
        """Return the examples as they are in the files."""
        parts = {
            name: Split([texts for texts, _ in rows], [label for _, label in rows]).limited(limits.get(name))
            for name, rows in splits.items()
        }
        return Choices([], **parts, warnings=shared_texts(parts["train"], parts["test"]))


@dataclass(frozen=True)
class Choices(Examples):
    """Everything that a multiple choice run reads."""

    def facts(self) -> dict[str, Any]:
        """Return what a record keeps of the data, what is reached by always taking the same place among it."""
        return super().facts() | {
            "majority_share": max(Counter(self.test.labels).values()) / len(self.test),
            "test_digest": self._digest([self.test.texts, self.test.labels]),
        }


def _letters(count: int) -> list[str]:
    return [chr(ord("A") + number) for number in range(count)]


def _right_one(label: str, names: Sequence[str], choices: Sequence[str], path: str, row: int) -> int:
    """Return the number of the choice that `label` means."""
    if label in names:
        return list(names).index(label)
    if label.removesuffix(".0").isdecimal() and int(float(label)) < len(choices):
        return int(float(label))
    if choices.count(label) == 1:
        return choices.index(label)
    if label in ("", "-1"):
        raise InputError(f"task.label: {path} hides the right choice in row {row}; name a file with labels")
    raise InputError(
        f"task.label: {path} has the label '{label}' in row {row}, which is none of its choices"
        f" ({', '.join(names)}, 0 to {len(choices) - 1}, or the text of one)"
    )
