"""What the two families of generated text share: a prompt, which is read, and a completion, which is learned."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import field_validator, model_validator

from pewb.tasks.augment import altered_text
from pewb.tasks.examples import Examples, Split, shared_texts
from pewb.tasks.family import Rows, TaskFamily
from pewb.tasks.templates import texts_of

if TYPE_CHECKING:
    import random

    import pandas

    from pewb.tasks.augment import Alteration


class Completions(TaskFamily):
    """The columns of a task in which text is to be written, and how it is judged.

    The loss is the mean over the completions' tokens, in nats, and perplexity its exponential.
    """

    prompt: str | int | None
    completion: str | int = "completion"
    """The column with what is to be written, or a text with columns in braces."""

    answer: str | None = None
    """A regular expression: its first group, or all of it, where it is found last in a text, is what counts as the answer."""

    kept_keys: ClassVar[tuple[str, ...]] = ("answer",)

    @property
    def training_options(self) -> tuple[str, ...]:
        """The tokens may be smoothed."""
        return ("label_smoothing",)

    @property
    def main_metric(self) -> str:
        """The loss."""
        return "loss"

    @model_validator(mode="after")
    def _columns_differ(self) -> Completions:
        if self.prompt == self.completion:
            raise ValueError(f"prompt and completion are the same column, '{self.prompt}'")
        return self

    @field_validator("answer")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"'{value}' is no regular expression: {error}") from None
        return value

    def why_not_written(self) -> str | None:
        """Return why no text can be generated and held against what is to be written, or None if it can."""
        return None if self.prompt is not None else "plain text has no prompt to go on from"

    def to_be_written(self, texts: tuple[str, ...], label: Any) -> str:
        """Return the text that is to follow the prompt."""
        return texts[-1]

    def rows(self, table: pandas.DataFrame, path: str) -> Rows:
        """Return (prompt, completion), or the completion alone, of each row; there are no labels."""
        columns = {"completion": self.completion}
        if self.prompt is not None:
            columns = {"prompt": self.prompt} | columns
        texts = [texts_of(table, name, key, path) for key, name in columns.items()]
        return [(row, None) for row in zip(*texts, strict=True)]

    def altered(
        self, texts: tuple[str, ...], label: Any, names: Sequence[str], alteration: Alteration, generator: random.Random
    ) -> tuple[tuple[str, ...], Any]:
        """Return the prompt altered; what is to be written stays."""
        if len(texts) < 2 or self.prompt is None:
            return super().altered(texts, label, names, alteration, generator)
        return (altered_text(texts[0], alteration, generator), *texts[1:]), label

    def written(self, texts: tuple[str, ...], label: Any, names: Sequence[str]) -> dict[str, Any]:
        """Return prompt and completion, or the completion alone."""
        return {"completion": texts[-1]} if len(texts) == 1 else {"prompt": texts[0], "completion": texts[1]}

    def written_keys(self, num_texts: int, names: Sequence[str]) -> dict[str, Any]:
        """Return whether there are prompts."""
        return {"kind": self.kind} | ({"prompt": "prompt"} if num_texts == 2 else {})

    def examples(self, splits: Mapping[str, Rows], limits: Mapping[str, int | None]) -> Examples:
        """Return the examples as they are in the files."""
        parts = {name: self._split(rows).limited(limits.get(name)) for name, rows in splits.items()}
        return Examples([], **parts, warnings=shared_texts(parts["train"], parts["test"]))

    def _split(self, rows: Rows) -> Split:
        return Split([texts for texts, _ in rows])
