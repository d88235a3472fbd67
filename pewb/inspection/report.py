"""The report: a task as a recipe's backbone reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pewb.assets import cache_folder, fetch_first
from pewb.backbone import load_tokenizer, read_blueprint
from pewb.batching import IGNORED, Encoded
from pewb.heads import head_of
from pewb.inspection.repeated import Repeated, repeated
from pewb.quiet import quieten_libraries
from pewb.recipe import LoadedRecipe
from pewb.reporting import Reporter, Silent
from pewb.runner.prepare import prepare_task
from pewb.tasks import Examples, Split, TaskFamily, read_examples
from pewb.tasks.augment import augmented
from pewb.tasks.model_heads import SEQ2SEQ_LM

_SHOWN = 3
"""Examples that are shown, token by token."""


@dataclass(frozen=True)
class ShownExample:
    """One row as the model reads it."""

    tokens: list[str]
    learned: list[bool]
    """Whether a token is a target; nothing is where the whole row has one label."""
    label: str


@dataclass(frozen=True)
class SplitReport:
    """One split."""

    name: str
    num_examples: int
    lengths: list[int]
    """Tokens of each row."""
    num_cut: int
    """Examples of which something is left out, to keep within `max_tokens`."""
    num_without_target: int
    classes: dict[str, int]
    """Examples (of tags: words) of each class; empty where there are no classes."""
    repeated: Repeated


@dataclass(frozen=True)
class DataReport:
    """A task, as a recipe's backbone reads it."""

    task: str
    backbone: str
    max_tokens: int
    splits: list[SplitReport]
    shown: list[ShownExample]
    num_augmented: int
    """Altered copies among the training examples, which are counted nowhere else."""
    warnings: list[str]


def inspect(loaded: LoadedRecipe, reporter: Reporter | None = None) -> DataReport:
    """Return what the first row of a recipe trains on and is judged by.

    Raises:
        InputError: the recipe's task or backbone can't be had, or does not serve.
    """
    quieten_libraries()
    recipe, reporter = loaded.cells[0].recipe, reporter or Silent()
    backbone = fetch_first("backbone", recipe.backbone, reporter, without_weights=True)
    prepared = prepare_task(recipe, loaded.given, Path("results"), reporter)
    task = prepared.table
    examples = read_examples(task, prepared.folder, recipe.limit.model_dump())
    blueprint = read_blueprint(backbone.folder, examples.labels, None, task)
    tokenizer = load_tokenizer(blueprint, recipe.strategy.padding_side)
    head = head_of(task, examples.labels, recipe.training, examples)
    splits = {"train": examples.train, "validation": examples.validation, "test": examples.test}
    max_tokens, kept = recipe.training.max_tokens, cache_folder() / "tokenised"
    encoded = {
        name: (head.encode_training if name == "train" else head.encode)(tokenizer, split, max_tokens, kept)
        for name, split in splits.items()
    }
    found = repeated(splits)
    num_augmented = 0
    if recipe.augment:
        more = augmented(task, examples, recipe.augment.alteration, recipe.augment.copies, recipe.augment.seed)
        num_augmented = len(more.train) - len(examples.train)
    return DataReport(
        task=prepared.name,
        backbone=backbone.name,
        max_tokens=max_tokens,
        splits=[
            SplitReport(
                name,
                len(split),
                encoded[name].lengths,
                encoded[name].num_cut,
                encoded[name].num_without_target,
                _classes(task, split, examples.labels),
                found[name],
            )
            for name, split in splits.items()
        ],
        shown=[
            _shown(tokenizer, task, encoded["train"], row, examples)
            for row in range(min(_SHOWN, len(encoded["train"])))
        ],
        num_augmented=num_augmented,
        warnings=examples.warnings,
    )


def _classes(task: TaskFamily, split: Split, names: Sequence[str]) -> dict[str, int]:
    """Return how many examples each class has."""
    if not names:
        return {}
    counts: Counter[int] = Counter()
    for label in split.labels:
        if isinstance(label, int):
            counts[label] += 1
        elif task.form == "multi_label":
            counts.update(number for number, one in enumerate(label) if one)
        else:
            counts.update(label)
    return {name: counts[number] for number, name in enumerate(names)}


def _shown(tokenizer: Any, task: TaskFamily, encoded: Encoded, row: int, examples: Examples) -> ShownExample:
    features = encoded.features[row]
    ids = features["input_ids"]
    labels = features.get("labels")
    tokens = [tokenizer.decode([token]) for token in ids]
    if labels is not None and len(labels) == len(ids) and task.model_head is not SEQ2SEQ_LM:
        learned = [label != IGNORED for label in labels]
        named = [examples.labels[label] for label in labels if label != IGNORED] if examples.labels else []
        return ShownExample(tokens, learned, " ".join(named))
    if labels is not None:
        targets = [tokenizer.decode([token]) for token in labels]
        return ShownExample([*tokens, *targets], [False] * len(tokens) + [True] * len(targets), "")
    return ShownExample(tokens, [False] * len(ids), _told(encoded.labels[row], examples.labels))


def _told(label: Any, names: Sequence[str]) -> str:
    if isinstance(label, int):
        return names[label]
    if isinstance(label, float):
        return f"{label:.4g}, scaled"
    if names:
        return ", ".join(name for name, one in zip(names, label, strict=True) if one) or "no class"
    return f"tokens {label[0]} to {label[1]}"
