"""From texts to batches: tokenising, grouping by length, padding."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

from pewb.device import moved
from pewb.errors import InputError
from pewb.objective import IGNORED, Inputs
from pewb.tasks import ModelHead, Split, TaskFamily

STATES = "prefix_states"
"""Under this name a batch's inputs hold cached states; a model whose frozen layers were cut out takes them there."""

_BATCHES_SORTED_TOGETHER = 50
"""Length is sorted within so many batches at a time, so that batches differ from epoch to epoch."""


@dataclass(frozen=True)
class Encoded:
    """The tokenised examples of one split."""

    features: Any
    """A `datasets.Dataset` with the tokenizer's columns."""
    labels: list[int]
    """The class of each example; empty where the columns hold labels for tokens."""
    lengths: list[int]
    """Tokens of each example, special ones included."""
    num_cut: int
    """Examples that were longer than `max_tokens`."""
    weights: list[int]
    """How many losses each example has: one for its class, or one for each of its target tokens."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_without_target(self) -> int:
        """Examples of which nothing is left to be predicted, because their prompts alone are too long."""
        return self.weights.count(0)


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
    return Encoded(features, labels, lengths, num_cut, [1] * len(lengths))


def encode_split(
    family: type[TaskFamily], tokenizer: Any, split: Split, max_tokens: int, cache: Path | None = None
) -> Encoded:
    """Tokenise a split as its family of tasks is read by a model (`encode` says what `max_tokens` and `cache` are).

    Raises:
        InputError: no example has a target token within `max_tokens`, or a decoder's tokenizer has no end token.
    """
    if family.model_head == "sequence_classification":
        return encode(tokenizer, split.texts, split.labels, max_tokens, cache)
    tokenise = _continued if family.model_head == "causal_lm" else _translated
    place = cache and _place_in(cache, tokenizer, split.texts, max_tokens, family.model_head)
    features, num_cut = (place and _stored(place)) or tokenise(tokenizer, split.texts, max_tokens)
    if place and not place.exists():
        _store(features, num_cut, place)
    labels = features["labels"]
    lengths = [len(ids) for ids in features["input_ids"]]
    if family.model_head == "seq2seq_lm":
        lengths = [source + len(target) for source, target in zip(lengths, labels, strict=True)]
    weights = [len(row) - row.count(IGNORED) for row in labels]
    if not any(weights):
        raise InputError(
            f"training.max_tokens: the prompts fill the {max_tokens} tokens, and nothing is left to be learned; raise it"
        )
    return Encoded(features, [], lengths, num_cut, weights)


def _continued(tokenizer: Any, texts: Sequence[tuple[str, ...]], max_tokens: int) -> tuple[Any, int]:
    """Return (prompt, completion) pairs, or texts alone, as one sequence each, and how many were cut at their end.

    Prompt and completion are tokenised apart, so that the labels begin where the completion does.
    """
    from datasets import Dataset

    if tokenizer.eos_token_id is None:
        raise InputError("backbone: its tokenizer has no end token, so a model can't learn where to stop; name another")
    start = _leading_tokens(tokenizer)
    prompts = _plain_tokens(tokenizer, [pair[0] for pair in texts]) if len(texts[0]) > 1 else [[] for _ in texts]
    completions = _plain_tokens(tokenizer, [pair[-1] for pair in texts])
    columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    num_cut = 0
    for prompt, completion in zip(prompts, completions, strict=True):
        read, learned = [*start, *prompt], [*completion, tokenizer.eos_token_id]
        num_cut += len(read) + len(learned) > max_tokens
        ids = [*read, *learned][:max_tokens]
        labels = [*([IGNORED] * len(read)), *learned][:max_tokens]
        columns["input_ids"].append(ids)
        columns["attention_mask"].append([1] * len(ids))
        columns["labels"].append([IGNORED, *labels[1:]])  # nothing stands before the first token to predict it from
    return Dataset.from_dict(columns), num_cut


def _translated(tokenizer: Any, texts: Sequence[tuple[str, ...]], max_tokens: int) -> tuple[Any, int]:
    """Return sources and, as labels, targets, each with its special tokens; and how many pairs were cut somewhere."""
    from datasets import Dataset

    options: dict[str, Any] = {"split_special_tokens": True}
    sources, targets = [pair[0] for pair in texts], [pair[1] for pair in texts]
    whole = (tokenizer(sources, **options)["input_ids"], tokenizer(text_target=targets, **options)["input_ids"])
    num_cut = sum(max(len(source), len(target)) > max_tokens for source, target in zip(*whole, strict=True))
    options |= {"truncation": True, "max_length": max_tokens}
    read = tokenizer(sources, **options)["input_ids"]
    columns = {"input_ids": read, "attention_mask": [[1] * len(ids) for ids in read]}
    columns["labels"] = tokenizer(text_target=targets, **options)["input_ids"]
    return Dataset.from_dict(columns), num_cut


def _plain_tokens(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    encoding = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)
    ids: list[list[int]] = encoding["input_ids"]
    return ids


def _leading_tokens(tokenizer: Any) -> list[int]:
    """Return the special tokens that the tokenizer puts before a text, such as Llama's begin token."""
    encoding = tokenizer("a", return_special_tokens_mask=True)
    is_special = encoding["special_tokens_mask"]
    return list(encoding["input_ids"][: is_special.index(0)])


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


def _place_in(
    cache: Path,
    tokenizer: Any,
    texts: Sequence[tuple[str, ...]],
    max_tokens: int,
    head: ModelHead = "sequence_classification",
) -> Path | None:
    """Return the folder for these texts as they are cut for a model with `head`; None if the tokenizer's working can't be told."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return None
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    rules = {key: value for key, value in backend.items() if key not in ("truncation", "padding")}  # set by each call
    working = [rules, type(tokenizer).__name__, tokenizer.model_input_names, tokenizer.truncation_side]
    versions = [version("transformers"), version("tokenizers")]
    content = json.dumps([*working, *versions, max_tokens, texts, head, tokenizer.eos_token_id])
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


class Ragged:
    """Rows of unlike lengths, one after another in one tensor."""

    def __init__(self, values: torch.Tensor, lengths: torch.Tensor) -> None:
        """Hold `values`, (all rows' entries, ...), of rows with `lengths`, (rows,)."""
        self.values = values
        self.lengths = lengths
        self.starts = lengths.cumsum(0) - lengths

    def padded(self, indices: torch.Tensor, side: str, padding: int | None) -> torch.Tensor:
        """Return rows as (rows, longest, ...), filled on `side` with `padding`; None: with copies of entries, to be masked."""
        lengths = self.lengths[indices, None]
        places = torch.arange(int(lengths.max()))
        if side == "left":
            places = places + lengths - len(places)
        inside = places.clamp(min=0).minimum(lengths - 1).clamp_(min=0) + self.starts[indices, None]
        found = self.values[inside.clamp_(max=len(self.values) - 1).flatten()].unflatten(0, inside.shape)
        if padding is None:
            return found
        return found.masked_fill_((places < 0) | (places >= lengths), padding)

    def packed(self, groups: Sequence[Sequence[int]], padding: int | None) -> torch.Tensor:
        """Return the rows of each group one after another, (groups, longest, ...), filled as `padded` does on the right."""
        places = [torch.cat([torch.arange(self.lengths[one]) + self.starts[one] for one in group]) for group in groups]
        return Ragged(self.values[torch.cat(places)], torch.tensor([len(one) for one in places])).padded(
            torch.arange(len(groups)), "right", padding
        )


class Batches(Protocol):
    """Where a step's inputs come from: real examples, or virtual ones that only have shapes."""

    def weight(self, indices: Sequence[int]) -> int:
        """Return how many losses the examples have together; the mean is over these."""
        ...

    def __call__(self, indices: Sequence[int]) -> tuple[Inputs, torch.Tensor]:
        """Return the model's inputs and the labels of a micro-batch, on the device; labels that are tokens on the host."""
        ...


@dataclass
class Collated:
    """Batches of tokenised examples, padded to the longest."""

    tokenizer: Any
    data: Encoded
    device: torch.device
    packing: bool = False
    """Put several short examples into one row, of which none sees another; only for labels that are tokens."""
    states: Ragged | None = None
    """What the frozen layers make of each example, (tokens, hidden) or (1, hidden), where that is cached."""
    _columns: dict[str, tuple[Ragged, int]] = field(init=False)
    """The inputs' columns, each with what pads it."""
    _labels: torch.Tensor | Ragged = field(init=False)

    def __post_init__(self) -> None:
        """Take the examples out of their table."""
        table = self.data.features.with_format("arrow")[:]
        found = {name: _ragged(table[name]) for name in table.column_names}
        self._labels = found.pop("labels", None) or torch.tensor(self.data.labels)
        paddings = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        self._columns = {name: (column, paddings.get(name, 0)) for name, column in found.items()}

    def weight(self, indices: Sequence[int]) -> int:
        """Return the number of examples, or of target tokens; at least 1, for a batch may have no target."""
        return max(1, sum(self.data.weights[index] for index in indices))

    def __call__(self, indices: Sequence[int]) -> tuple[Inputs, torch.Tensor]:
        """Return the model's inputs, each (batch, tokens), and the labels: classes, (batch,), or tokens, (batch, tokens).

        Labels that are tokens are padded with `IGNORED` on the right. Of examples whose cached states are one row, which
        is the first token's, the model is given that token alone.
        """
        if self.packing:
            return self._packed(indices)
        chosen = torch.as_tensor(indices)
        side = self.tokenizer.padding_side
        columns, labels = self._columns, self._labels
        if self.is_one_row:
            inputs = {name: column.values[column.starts[chosen], None] for name, (column, _) in columns.items()}
        else:
            inputs = {name: column.padded(chosen, side, padding) for name, (column, padding) in columns.items()}
        if self.states is not None:
            inputs[STATES] = self.states.padded(chosen, side, None)
        if isinstance(labels, Ragged):
            assert side == "right"
            told = labels.padded(chosen, "right", IGNORED)  # it stays where it can be read without waiting
        else:
            told = moved(labels[chosen], self.device)
        return {name: moved(_as_numbers(tensor), self.device) for name, tensor in inputs.items()}, _as_numbers(told)

    def _packed(self, indices: Sequence[int]) -> tuple[Inputs, torch.Tensor]:
        """Return the examples in fewer rows, no longer than the longest example; positions start anew in each example.

        There is no mask: transformers' attentions tell the examples of a row apart by their positions. What fills a row up is an
        example of its own, without a target.
        """
        groups = packed_rows({index: self.data.lengths[index] for index in indices})
        ids, padding = self._columns["input_ids"]
        inputs = {"input_ids": ids.packed(groups, padding), "position_ids": self._positions.packed(groups, -1)}
        filling = inputs["position_ids"] < 0
        inputs["position_ids"] += filling.cumsum(1)  # -1 + 1, -1 + 2, …
        if self.states is not None:
            inputs[STATES] = self.states.packed(groups, None)
        assert isinstance(self._labels, Ragged)
        labels = _as_numbers(self._labels.packed(groups, IGNORED))
        return {name: moved(_as_numbers(tensor), self.device) for name, tensor in inputs.items()}, labels

    @cached_property
    def _positions(self) -> Ragged:
        """Each token's place in its example."""
        lengths = self._columns["input_ids"][0].lengths
        return Ragged(torch.cat([torch.arange(length, dtype=torch.int32) for length in lengths]), lengths)

    @cached_property
    def is_one_row(self) -> bool:
        """Whether the model is given the first token of each example alone."""
        return self.states is not None and bool((self.states.lengths == 1).all())


def _as_numbers(tensor: torch.Tensor) -> torch.Tensor:
    """Return whole numbers, which are kept short, as PyTorch's functions want them."""
    return tensor if tensor.is_floating_point() else tensor.long()


def _ragged(column: Any) -> Ragged:
    """Return an Arrow column of lists of integers."""
    import pyarrow.compute

    values = torch.tensor(pyarrow.compute.list_flatten(column).to_numpy())
    is_mask = len(values) > 0 and set(values.unique().tolist()) <= {0, 1}
    values = values.to(torch.int8 if is_mask else torch.int32)
    return Ragged(values, torch.tensor(pyarrow.compute.list_value_length(column).to_numpy(), dtype=torch.long))


def packed_rows(lengths: Mapping[int, int]) -> list[list[int]]:
    """Return which examples share a row no longer than the longest of them: the longest first, each in the first row with room."""
    capacity = max(lengths.values())
    rows: list[list[int]] = []
    room: list[int] = []
    for example in sorted(lengths, key=lambda one: -lengths[one]):
        place = next((number for number, left in enumerate(room) if left >= lengths[example]), None)
        if place is None:
            place = len(rows)
            rows.append([])
            room.append(capacity)
        rows[place].append(example)
        room[place] -= lengths[example]
    return rows


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
