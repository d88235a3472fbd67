"""What the two families of generated text share: a prompt, which is read, and a completion, which is learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import model_validator

from pewb.tasks.examples import Examples, Split, shared_texts
from pewb.tasks.family import Rows, TaskFamily
from pewb.tasks.tables import column, filled

if TYPE_CHECKING:
    import pandas


class Completions(TaskFamily):
    """The columns of a task in which text is to be written, and how it is judged.

    The loss is the mean over the completions' tokens, in nats, and perplexity its exponential.
    """

    prompt: str | int | None
    completion: str | int = "completion"
    """The column with what is to be written."""

    main_metric: ClassVar[str] = "loss"
    greater_is_better: ClassVar[bool] = False

    @model_validator(mode="after")
    def _columns_differ(self) -> Completions:
        if self.prompt == self.completion:
            raise ValueError(f"prompt and completion are the same column, '{self.prompt}'")
        return self

    def rows(self, table: pandas.DataFrame, path: str) -> Rows:
        """Return (prompt, completion), or the completion alone, of each row; there are no labels."""
        columns = {"completion": self.completion}
        if self.prompt is not None:
            columns = {"prompt": self.prompt} | columns
        texts = [filled(column(table, name, key, path), key, path).astype(str) for key, name in columns.items()]
        return [(row, "") for row in zip(*texts, strict=True)]

    def examples(self, splits: Mapping[str, Rows], limits: Mapping[str, int | None]) -> Examples:
        """Return the examples as they are in the files."""
        parts = {name: Split([texts for texts, _ in rows]).limited(limits.get(name)) for name, rows in splits.items()}
        return Examples([], **parts, warnings=shared_texts(parts["train"], parts["test"]))
