"""Multiple choice: of several continuations of a prompt one is right, and a language model finds it the likeliest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from string import ascii_uppercase
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


NamedChoices = tuple[list[str] | None, list[str]]
"""The names that a file gives the choices of a row, such as A, B, C, if it does; and the choices."""


class MultipleChoice(TaskFamily):
    """The keys of a `task` table with `kind = "multiple_choice"`.

    Training learns to continue the prompt with the right choice; the answer is the choice that is the likeliest, and, for
    choices of unlike lengths, the likeliest per byte (`accuracy_normalised`).
    """

    kind: Literal["multiple_choice"] = "multiple_choice"
    prompt: str | int = "prompt"
    """The column with what comes before the choices, or a text with columns in braces."""
    choices: str | int | list[str | int] = "choices"
    """The column with lists of choices (or with tables of `text` and `label`, as ARC has them), or a column for each."""
    label: str | int = "label"
    """The column with the right one, in every row in the same way: its letter; its number, from 0; or what it says."""

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
    def training_options(self) -> tuple[str, ...]:
        """The right choice's tokens may be smoothed."""
        return ("label_smoothing",)

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
        labels = filled(column(table, self.label, "label", path), "label", path).astype(str).str.strip()
        choices = self._choices(table, path)
        for number, (_, texts) in enumerate(choices, 1):
            if len(texts) < 2 or not all(text.strip() for text in texts):
                raise InputError(f"task.choices: {path} has fewer than two choices in row {number}, or an empty one")
        right = _right_ones(list(labels), choices, path)
        return [((prompt, *texts), one) for prompt, (_, texts), one in zip(prompts, choices, right, strict=True)]

    def _choices(self, table: pandas.DataFrame, path: str) -> list[NamedChoices]:
        """Return the names of the choices, where the file has some, and the choices, of each row."""
        from pandas.api.types import is_list_like

        if isinstance(self.choices, list):
            columns = [
                filled(column(table, name, "choices", path), str(name), path).astype(str) for name in self.choices
            ]
            return [(None, list(row)) for row in zip(*columns, strict=True)]
        found: list[NamedChoices] = []
        for number, value in enumerate(column(table, self.choices, "choices", path), 1):
            if isinstance(value, Mapping) and is_list_like(value.get("text")):
                texts = list(value["text"])
                names = [str(one) for one in value["label"]] if is_list_like(value.get("label")) else None
            elif is_list_like(value) and not isinstance(value, Mapping):
                texts, names = list(value), None
            else:
                raise InputError(
                    f"task.choices: {path} has no list of choices in row {number}; give JSON Lines or Parquet with lists,"
                    ' or name a column for each choice: choices = ["a", "b"]'
                )
            if not all(isinstance(text, str | Real) for text in texts):
                raise InputError(f"task.choices: {path} has a choice in row {number} that is no text; remove the row")
            if names is not None and len(names) != len(texts):
                raise InputError(
                    f"task.choices: {path} has {len(texts)} choices and {len(names)} labels in row {number}"
                )
            found.append((names, [str(text) for text in texts]))
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


_MANY = 20
"""Rows of which some have their first choice right, unless its number is another than 0."""


def _right_ones(labels: Sequence[str], choices: Sequence[NamedChoices], path: str) -> list[int]:
    """Return the number of the right choice of each row; how its labels are meant is the same for a whole column.

    Raises:
        InputError: they can't all be meant in one way, or in more than one.
    """
    for row, label in enumerate(labels, 1):
        if label in ("", "-1"):
            raise InputError(f"task.label: {path} hides the right choice in row {row}; name a file with labels")
    found = {
        meaning: [read(label, names, texts) for label, (names, texts) in zip(labels, choices, strict=True)]
        for meaning, read in _MEANINGS.items()
    }
    named = found.pop("names")
    if None not in named:
        return [one for one in named if one is not None]
    whole = {meaning: told for meaning, told in found.items() if None not in told}
    if not whole:
        nearest = min(found, key=lambda meaning: found[meaning].count(None))
        row = found[nearest].index(None)
        names, texts = choices[row]
        ways = (
            ", ".join(names) if names else f"A to {_letter(len(texts) - 1)}, 0 to {len(texts) - 1}, or the text of one"
        )
        from_one = all(
            label.isdecimal() and 1 <= int(label) <= len(told) for label, (_, told) in zip(labels, choices, strict=True)
        )
        hint = (
            "; they seem to count from 1, and pewb counts from 0"
            if from_one
            else ", or is meant in another way than in most rows; write them all in one way"
        )
        raise InputError(
            f"task.label: {path} has the label '{labels[row]}' in row {row + 1}, which is none of its choices ({ways}){hint}"
        )
    if list(whole) == ["numbers"] and len(labels) >= _MANY and 0 not in whole["numbers"]:
        raise InputError(
            f"task.label: of the {len(labels)} rows of {path} none has the label 0; numbers count from 0, so if yours count from 1,"
            " take 1 off each, or write letters"
        )
    first, *others = whole.values()
    for other in others:
        if other != first:
            row = next(place for place, (one, two) in enumerate(zip(first, other, strict=True)) if one != two)
            way_out = "numbers: 0" if "letters" in whole else "letters: A"
            raise InputError(
                f"task.label: {path} has the label '{labels[row]}' in row {row + 1}, which may be a choice's text as well as"
                f" its place, and so may all others; write {way_out} is the first choice"
            )
    return [one for one in first if one is not None]


def _by_name(label: str, names: Sequence[str] | None, texts: Sequence[str]) -> int | None:
    return list(names).index(label) if names and label in names else None


def _by_letter(label: str, names: Sequence[str] | None, texts: Sequence[str]) -> int | None:
    place = ascii_uppercase.find(label.upper()) if len(label) == 1 else -1
    return place if 0 <= place < len(texts) else None


def _by_number(label: str, names: Sequence[str] | None, texts: Sequence[str]) -> int | None:
    digits = label.removesuffix(".0")
    return int(digits) if digits.isdecimal() and int(digits) < len(texts) else None


def _by_text(label: str, names: Sequence[str] | None, texts: Sequence[str]) -> int | None:
    told = [text.strip() for text in texts]
    return told.index(label) if told.count(label) == 1 else None


_MEANINGS = {"names": _by_name, "letters": _by_letter, "numbers": _by_number, "texts": _by_text}
"""How labels may be meant; by the names that a file gives its choices before all else."""


def _letter(place: int) -> str:
    return chr(ord("A") + place)
