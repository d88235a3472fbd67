"""Token classification: a tag for each word of a sentence, such as whether it is part of a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pewb.errors import InputError
from pewb.tasks.augment import alter
from pewb.tasks.classes import missing_classes, numbered_classes
from pewb.tasks.examples import Examples, Split, shared_texts
from pewb.tasks.family import Rows, TaskFamily
from pewb.tasks.model_heads import TOKEN_CLASSIFICATION, ModelHead
from pewb.tasks.tables import column

if TYPE_CHECKING:
    import random

    import pandas

    from pewb.tasks.augment import Alteration

OUTSIDE = "O"
"""The tag of a word that is part of nothing."""


class TokenClassification(TaskFamily):
    """The keys of a `task` table with `kind = "token_classification"`.

    The files are CoNLL columns (a word and its tags on a line, an empty line between sentences), or tables whose rows hold
    a list of words and a list of tags. Tags begin with B- and I- (or E-, S-) where they are parts of entities.
    """

    kind: Literal["token_classification"] = "token_classification"
    words: str | int = "words"
    """The column with the words; of CoNLL files its number, from 0."""
    tags: str | int = "tags"
    """The column with the tags; of CoNLL files its number, from 0, or from the last: -1."""
    labels: list[str] | None = Field(default=None, min_length=2)
    """Names of the tags; for tags that are numbers, in the order 0, 1, …"""

    model_head: ClassVar[ModelHead] = TOKEN_CLASSIFICATION
    references: ClassVar[tuple[str, ...]] = ("most_frequent_tag",)

    @model_validator(mode="after")
    def _columns_make_sense(self) -> TokenClassification:
        if self.words == self.tags:
            raise ValueError(f"words and tags are the same column, '{self.words}'")
        if self.labels and len(set(self.labels)) < len(self.labels):
            raise ValueError("labels names a tag twice")
        return self

    @property
    def training_options(self) -> tuple[str, ...]:
        """The classes are those of words."""
        return ("class_weights", "label_smoothing")

    @property
    def main_metric(self) -> str:
        """F1 over entities (over words, if the tags have no B- and I-)."""
        return "f1"

    def assumed_labels(self) -> Sequence[str] | None:
        """Return the tags, if the keys name them."""
        return self.labels

    def altered(
        self, texts: tuple[str, ...], label: Any, names: Sequence[str], alteration: Alteration, generator: random.Random
    ) -> tuple[tuple[str, ...], Any]:
        """Return altered words; those inside of something stay as and where they are, and so do their neighbours' places.

        So does the first word after something, without which two things might become one.
        """
        if OUTSIDE not in names:
            return super().altered(texts, label, names, alteration, generator)
        outside = {place for place, tag in enumerate(label) if names[tag] == OUTSIDE}
        free = {place for place in outside if place == 0 or place - 1 in outside}
        made = alter(texts, alteration, generator, lambda place: place in free)
        return tuple(word for _, word in made), [label[place] for place, _ in made]

    def written(self, texts: tuple[str, ...], label: Any, names: Sequence[str]) -> dict[str, Any]:
        """Return the words and their tags."""
        return {"words": list(texts), "tags": [names[tag] for tag in label]}

    def written_keys(self, num_texts: int, names: Sequence[str]) -> dict[str, Any]:
        """Return the tags' names."""
        return {"kind": self.kind, "labels": list(names)}

    def rows(self, table: pandas.DataFrame, path: str) -> Rows:
        """Return the words and the tags of each sentence."""
        words = _lists(column(table, self._place(table, self.words), "words", path), "words", path)
        tags = _lists(column(table, self._place(table, self.tags), "tags", path), "tags", path)
        for number, (row, told) in enumerate(zip(words, tags, strict=True), 1):
            if len(row) != len(told):
                raise InputError(
                    f"task.tags: {path} has {len(row)} words and {len(told)} tags in sentence {number}; each word needs a tag"
                )
        return [(row, told) for row, told in zip(words, tags, strict=True) if row]

    @staticmethod
    def _place(table: pandas.DataFrame, name: str | int) -> str | int:
        return len(table.columns) + name if isinstance(name, int) and name < 0 else name

    def examples(self, splits: Mapping[str, Rows], limits: Mapping[str, int | None]) -> Tagged:
        """Return the sentences with numbered tags."""
        seen = {name: {tag for _, tags in rows for tag in tags} for name, rows in splits.items()}
        num_words = sum(len(words) for words, _ in splits["train"])
        names, index = numbered_classes(seen, self.labels, num_words, "tags", str(self.tags))
        parts = {
            name: Split([words for words, _ in rows], [[index[tag] for tag in tags] for _, tags in rows]).limited(
                limits.get(name), lambda tags: tuple(sorted(set(tags)))
            )
            for name, rows in splits.items()
        }
        used = {name: Counter(tag for tags in split.labels for tag in tags) for name, split in parts.items()}
        if len(used["train"]) < 2:
            raise InputError(
                f"task.tags: every word of the {len(parts['train'])} training sentences has the tag"
                f" '{names[next(iter(used['train']), 0)]}'; give more sentences, or raise limit.train if it is set"
            )
        warnings = shared_texts(parts["train"], parts["test"]) + missing_classes(parts, names, used)
        return Tagged(names, **parts, warnings=warnings)


@dataclass(frozen=True)
class Tagged(Examples):
    """Everything that a token classification run reads."""

    def facts(self) -> dict[str, Any]:
        """Return what a record keeps of the data, the tags among it."""
        tags = [[self.labels[tag] for tag in row] for row in self.test.labels]
        return super().facts() | {
            "labels": self.labels,
            "test_words": sum(map(len, self.test.texts)),
            "test_digest": self._digest([self.test.texts, tags]),
        }


def _lists(series: pandas.Series, key: str, path: str) -> list[tuple[str, ...]]:
    """Return the lists of a column, whose entries are texts or whole numbers.

    Raises:
        InputError: some row holds no list, or an empty word.
    """
    from pandas.api.types import is_list_like

    for number, value in enumerate(series, 1):
        if not is_list_like(value):
            raise InputError(
                f"task.{key}: {path} holds no list in the column '{series.name}' (row {number}); give CoNLL columns"
                ' (format = "conll"), or JSON Lines or Parquet with lists'
            )
        if empty := [place for place, one in enumerate(value, 1) if one is None or not str(one).strip()]:
            raise InputError(f"task.{key}: {path} has an empty entry in row {number}, place {empty[0]}; remove it")
        if key == "tags" and (wide := [str(one) for one in value if len(str(one).split()) > 1]):
            raise InputError(
                f"task.tags: {path} has the tag '{wide[0]}' in row {number}; a tag is one word, so join its parts"
            )
    return [tuple(str(one).strip() for one in value) for value in series]
