"""What every family of tasks is: the keys that name its files, its facts, and how its examples are divided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pewb.errors import InputError
from pewb.tasks.examples import Examples
from pewb.tasks.metrics import greater_is_better
from pewb.tasks.model_heads import ModelHead
from pewb.tasks.splits import share_of, text_key
from pewb.tasks.tables import Format, files_of, read_table

if TYPE_CHECKING:
    import random

    import pandas

    from pewb.tasks.augment import Alteration

VALIDATION_SHARE = 0.1
"""Share of the training examples that validates where no validation file is given."""

WRITTEN_TEXTS = ("text", "second_text")
"""What the columns are called with one text or two, in files that pewb writes."""

Rows = list[tuple[tuple[str, ...], Any]]
"""The texts of each example and its label as it is in the file; None where a family has no labels."""


class Shares(BaseModel):
    """How one file is divided, in parts of their sum."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    train: float = Field(default=80, gt=0)
    """Part of the training split."""
    validation: float = Field(default=10, gt=0)
    """Part of the validation split."""
    test: float = Field(default=10, gt=0)
    """Part of the test split."""


class TaskFamily(BaseModel):
    """The keys that a `task` table of every kind has, and the facts that hold for every task of the family."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: str
    dataset: str | None = None
    """A data set on the hub ("org/name"); the files below are then inside it."""
    data: str | None = None
    """One file with everything, divided by a hash of the text (see `split`)."""
    train: str | None = None
    """The file with the training examples."""
    validation: str | None = None
    """Left out: a tenth of the training examples, by a hash of the text."""
    test: str | None = None
    """The file with the test examples, which the trained model predicts once, in the end."""
    header: bool = True
    """Whether CSV and TSV files begin with the columns' names; without, columns are numbered from 0."""
    format: Format | None = None
    """Left out: told by the file's ending."""
    split: Shares | None = None
    """The parts of the one file `data`; left out: 80, 10 and 10."""

    model_head: ClassVar[ModelHead]
    """What stands on top of the backbone: a new head, or the one with which it predicts tokens."""
    kept_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that mean the same for a copy of the examples: they are about neither files nor columns."""
    references: ClassVar[tuple[str, ...]] = ()
    """Classical predictors that stand in every table beside the strategies, so that a useless one is seen to be useless."""

    @model_validator(mode="after")
    def _one_way_to_name_files(self) -> TaskFamily:
        if self.data and (self.train or self.test or self.validation):
            raise ValueError("give either data (one file, divided) or train and test, not both")
        if (self.dataset or self.train or self.validation or self.test) and (missing := self.missing_files()):
            raise ValueError(missing)
        if self.split and not self.data:
            raise ValueError("split divides one file: name that file as data, or leave split out")
        return self

    @property
    def form(self) -> str:
        """How its examples go through a model: a name of the table in `pewb.heads`."""
        return self.kind

    @property
    def training_options(self) -> tuple[str, ...]:
        """Which of `label_smoothing`, `class_weights` and `packing` a training of such a task may have."""
        return ()

    @property
    def main_metric(self) -> str:
        """The metric that is validated on and ranked by."""
        raise NotImplementedError

    @property
    def greater_is_better(self) -> bool:
        """Whether a greater main metric is the better one."""
        return greater_is_better(self.main_metric)

    def outputs(self, labels: Sequence[str]) -> Sequence[str]:
        """Return the names of what a new head gives, of a task with the classes `labels`."""
        return labels

    def assumed_labels(self) -> Sequence[str] | None:
        """Return the classes as far as the keys alone tell them, for a plan; None: they are in the files."""
        return ()

    def missing_files(self) -> str | None:
        """Return which files have to be named before the task can be run, or None if it can."""
        if self.data or (self.train and self.test):
            return None
        missing = "test" if self.train else "train"
        return f"'{missing}' is missing: give train and test files, or one file as data to have it divided" + (
            f" (paths or patterns inside '{self.dataset}')" if self.dataset else ""
        )

    def check_files(self) -> None:
        """Refuse a table that names no files, with which nothing can be run.

        Raises:
            InputError: it names none.
        """
        if missing := self.missing_files():
            raise InputError(f"task: {missing}")

    def rows(self, table: pandas.DataFrame, path: str) -> Rows:
        """Return the examples of a table that was read from `path`.

        Raises:
            InputError: a column is missing, or does not serve.
        """
        raise NotImplementedError

    def examples(self, splits: Mapping[str, Rows], limits: Mapping[str, int | None]) -> Examples:
        """Return the checked examples of `train`, `validation` and `test`, of each at most as many as `limits` says.

        Raises:
            InputError: they do not serve.
        """
        raise NotImplementedError

    def altered(
        self, texts: tuple[str, ...], label: Any, names: Sequence[str], alteration: Alteration, generator: random.Random
    ) -> tuple[tuple[str, ...], Any]:
        """Return an altered copy of an example, and its label, which is to stay true; `names` are those of the classes.

        Raises:
            InputError: no part of an example can be altered so that it does.
        """
        raise InputError(
            f"augment: examples of kind '{self.kind}' can't be altered without changing what is learned; leave it out"
        )

    def written(self, texts: tuple[str, ...], label: Any, names: Sequence[str]) -> dict[str, Any]:
        """Return an example as a row of JSON Lines that a task with the keys `written_keys` reads; `names` are the classes'."""
        raise NotImplementedError

    def written_keys(self, num_texts: int, names: Sequence[str]) -> dict[str, Any]:
        """Return the keys of a task that reads rows of `written`, besides those of the files and the `kept_keys`."""
        return {"kind": self.kind}

    def why_not_written(self) -> str | None:
        """Return why no text can be generated for its examples, or None if it can."""
        return f"a task of kind '{self.kind}' has no text to be written"

    def split_key(self, texts: tuple[str, ...], label: Any) -> str:
        """Return by what an example is divided, as `text_key` gives it: equal keys stay together."""
        return text_key(texts)

    def why_empty(self, key: str, name: str) -> str:
        """Return why the split `name` is empty and what to do; `key` is the task's key for the file it came from."""
        if self.data or (name == "validation" and not self.validation):
            return (
                f"task: the {name} split is empty: too few different texts to divide by their hash;"
                " give more examples, or train, validation and test as files of their own"
            )
        return f"task.{key}: the {name} split is empty; name a file with examples"


def read_examples(task: TaskFamily, folder: Path, limits: Mapping[str, int | None]) -> Examples:
    """Read and check the task's files below `folder`.

    Args:
        task: the task's keys.
        folder: what relative paths are taken from.
        limits: at most so many examples of `train`, `validation`, `test` (None: all).

    Raises:
        InputError: a file or column is missing, a split is empty, or the examples do not serve.
    """
    task.check_files()
    splits = _divided(task, folder)
    for name, rows in splits.items():
        if not rows:
            raise InputError(task.why_empty("data" if task.data else name, name))
    return task.examples(splits, limits)


def _divided(task: TaskFamily, folder: Path) -> dict[str, Rows]:
    if task.data:
        whole = _read(task, folder, "data")
        shares = task.split or Shares()
        total = shares.train + shares.validation + shares.test
        first, second = shares.train / total, (shares.train + shares.validation) / total
        bounds = {"train": (0, first), "validation": (first, second), "test": (second, 1)}
        return {name: _part(task, whole, low, high) for name, (low, high) in bounds.items()}
    train, test = _read(task, folder, "train"), _read(task, folder, "test")
    if task.validation:
        return {"train": train, "validation": _read(task, folder, "validation"), "test": test}
    rest, carved = _part(task, train, 0, 1 - VALIDATION_SHARE), _part(task, train, 1 - VALIDATION_SHARE, 1)
    return {"train": rest, "validation": carved, "test": test}


def _part(task: TaskFamily, rows: Rows, low: float, high: float) -> Rows:
    return [row for row in rows if low <= share_of(task.split_key(*row)) < high]


def _read(task: TaskFamily, folder: Path, key: str) -> Rows:
    """Return the examples of the file that the task's `key` names."""
    pattern = getattr(task, key)
    return task.rows(read_table(files_of(folder, pattern, key), task.format, task.header), pattern)
