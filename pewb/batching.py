"""From texts to batches: tokenising, grouping by length, padding."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

_BATCHES_SORTED_TOGETHER = 50
"""Length is sorted within so many batches at a time, so that batches differ from epoch to epoch."""


@dataclass(frozen=True)
class Encoded:
    """The tokenised examples of one split."""

    features: Any
    """A `datasets.Dataset` with the tokenizer's columns."""
    labels: list[int]
    lengths: list[int]
    """Tokens of each example, special ones included."""
    num_cut: int
    """Examples that were longer than `max_tokens`."""

    def __len__(self) -> int:
        return len(self.labels)


def encode(
    tokenizer: Any, texts: Sequence[tuple[str, ...]], labels: list[int], max_tokens: int, cache: Path | None = None
) -> Encoded:
    """Tokenise `texts` (singles or pairs), cutting each to `max_tokens` tokens.

    A tokenizer that puts nothing between the texts of a pair, as most decoders' do, gets them on two lines. What was
    tokenised once is read from the folder `cache` by every run that asks for the same.
    """
    if not tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add(pair=False):
        texts = [("\n".join(pair),) for pair in texts]
    place = cache and _place_in(cache, tokenizer, texts, max_tokens)
    features, num_cut = (place and _stored(place)) or _tokenised(tokenizer, texts, max_tokens)
    if place and not place.exists():
        _store(features, num_cut, place)
    lengths = [len(ids) for ids in features["input_ids"]]
    return Encoded(features, labels, lengths, num_cut)


def _tokenised(tokenizer: Any, texts: Sequence[tuple[str, ...]], max_tokens: int) -> tuple[Any, int]:
    """Return the tokenizer's columns for `texts`, and how many texts were cut."""
    from datasets import Dataset

    num_cut = 0

    def tokenise(batch: dict[str, list[str]]) -> dict[str, Any]:
        nonlocal num_cut
        columns = [batch[name] for name in ("first", "second") if name in batch]
        # A text that spells a special token, such as "</s>", is text: the heads of T5 and BART count end tokens.
        encoding = tokenizer(*columns, truncation=True, max_length=max_tokens, split_special_tokens=True)
        if encoding.encodings is not None:
            num_cut += sum(bool(one.overflowing) for one in encoding.encodings)
        else:  # a tokenizer written in Python
            num_cut += sum(len(ids) > max_tokens for ids in tokenizer(*columns, split_special_tokens=True)["input_ids"])
        return dict(encoding)

    columns = {"first": [one[0] for one in texts]}
    if texts and len(texts[0]) > 1:
        columns["second"] = [one[1] for one in texts]
    table = Dataset.from_dict(columns)
    features = table.map(
        tokenise, batched=True, remove_columns=list(columns), load_from_cache_file=False, keep_in_memory=True
    )
    return features, num_cut


def _place_in(cache: Path, tokenizer: Any, texts: Sequence[tuple[str, ...]], max_tokens: int) -> Path | None:
    """Return the folder for these texts as this tokenizer cuts them; None for one whose working can't be told."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return None
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    rules = {key: value for key, value in backend.items() if key not in ("truncation", "padding")}  # set by each call
    working = [rules, type(tokenizer).__name__, tokenizer.model_input_names, tokenizer.truncation_side]
    versions = [version("transformers"), version("tokenizers")]
    content = json.dumps([*working, *versions, max_tokens, texts])
    return cache / hashlib.sha256(content.encode()).hexdigest()[:32]


def _stored(place: Path) -> tuple[Any, int] | None:
    """Return what `_store` put into the folder, or None if it is not there, or not readable."""
    from datasets import load_from_disk

    try:
        return load_from_disk(str(place)), json.loads((place / "cut.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        shutil.rmtree(place, ignore_errors=True)
        return None


def _store(features: Any, num_cut: int, place: Path) -> None:
    """Write the columns so that the folder appears whole or not at all; another run may be faster, or the disk full."""
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    try:
        features.save_to_disk(str(partial))
        (partial / "cut.json").write_text(json.dumps(num_cut), encoding="utf-8")
        partial.rename(place)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)


def collate(
    tokenizer: Any, data: Encoded, indices: Sequence[int], device: torch.device
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the model's inputs, each (batch, tokens) and padded to the longest, and the labels, (batch,)."""
    columns = data.features[list(indices)]
    inputs = tokenizer.pad(columns, return_tensors="pt")
    labels = torch.tensor([data.labels[index] for index in indices])
    return {name: tensor.to(device) for name, tensor in inputs.items()}, labels.to(device)


def shuffled_batches(
    lengths: Sequence[int], batch_size: int, generator: torch.Generator, bucketing: bool
) -> list[list[int]]:
    """Return one epoch's batches of example numbers, in random order; with `bucketing`, of like length.

    The order depends on `generator` alone, so that every strategy sees the same batches.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    if bucketing:
        span = batch_size * _BATCHES_SORTED_TOGETHER
        parts = [order[start : start + span] for start in range(0, len(order), span)]
        order = [index for part in parts for index in sorted(part, key=lambda index: -lengths[index])]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [batches[number] for number in torch.randperm(len(batches), generator=generator).tolist()]


def longest_first(batches: list[list[int]], lengths: Sequence[int], count: int) -> list[list[int]]:
    """Move the `count` batches that hold the most padded tokens to the front, so that memory peaks at once."""
    size = [len(batch) * max(lengths[index] for index in batch) for batch in batches]
    front = sorted(range(len(batches)), key=lambda number: -size[number])[:count]
    return [batches[number] for number in front] + [
        batch for number, batch in enumerate(batches) if number not in set(front)
    ]
