"""Tokenised examples, as a head wants them, and where they are kept for other runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pewb.tasks import Split

IGNORED = -100
"""The label of a position at which nothing is to be predicted: a prompt's token, padding."""


@dataclass(frozen=True)
class Tokenised:
    """A table of tokens, and what else was found out when it was made."""

    features: Any
    """A `datasets.Dataset` with the model's inputs as columns, and with `labels` where those are tokens'.

    Columns whose names begin with `_` are the head's own.
    """
    num_cut: int
    """Examples of which something was left out, to keep within `max_tokens`."""


@dataclass(frozen=True)
class Encoded:
    """The tokenised examples of one split."""

    features: Any
    """A `datasets.Dataset` as in `Tokenised`; one row is what a model reads at once."""
    labels: Sequence[Any]
    """What is to be predicted of each row, numbers; empty where the columns hold labels for tokens."""
    lengths: list[int]
    """Tokens of each row, special ones included."""
    num_cut: int
    """Examples of which something was left out, to keep within `max_tokens`."""
    weights: Sequence[float]
    """What each row's losses weigh together: one for its class, or one for each of its target tokens, if all weigh the same."""
    split: Split = field(default_factory=Split)
    """The examples themselves."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_without_target(self) -> int:
        """Rows in which nothing is to be predicted, for instance because a prompt alone is too long."""
        return list(self.weights).count(0)


def kept(
    cache: Path | None, tokenizer: Any, content: Any, max_tokens: int, form: str, make: Callable[[], Tokenised]
) -> Tokenised:
    """Return what `make` does, from the folder `cache` if any run has made the same before.

    Args:
        cache: None: nothing is kept.
        tokenizer: the one that makes it.
        content: all that is tokenised, JSON.
        max_tokens: to which rows are cut.
        form: how it is done: a head's name.
        make: does it.
    """
    place = cache and _place_in(cache, tokenizer, content, max_tokens, form)
    found = place and _stored(place)
    if found:
        return found
    made = make()
    if place and not place.exists():
        _store(made, place)
    return made


def _place_in(cache: Path, tokenizer: Any, content: Any, max_tokens: int, form: str) -> Path | None:
    """Return the folder for these texts as they are cut for a head; None if the tokenizer's working can't be told."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return None
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    rules = {key: value for key, value in backend.items() if key not in ("truncation", "padding")}  # set by each call
    working = [rules, type(tokenizer).__name__, tokenizer.model_input_names, tokenizer.truncation_side]
    versions = [_FORMAT, version("transformers"), version("tokenizers")]
    told = json.dumps([*working, *versions, max_tokens, content, form, tokenizer.eos_token_id])
    return cache / hashlib.sha256(told.encode()).hexdigest()[:32]


_FORMAT = 4
"""Of what is kept: raised when rows of the same texts become others."""


def _stored(place: Path) -> Tokenised | None:
    """Return what `_store` put into the folder, or None if it is not there, or not readable."""
    from datasets import load_from_disk

    try:
        told = json.loads((place / "told.json").read_text(encoding="utf-8"))
        return Tokenised(load_from_disk(str(place)), told["num_cut"])
    except (OSError, ValueError, KeyError, TypeError):
        shutil.rmtree(place, ignore_errors=True)
        return None


def _store(made: Tokenised, place: Path) -> None:
    """Write it so that the folder appears whole or not at all; another run may be faster, or the disk full."""
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    try:
        made.features.save_to_disk(str(partial))
        told = {"num_cut": made.num_cut}
        (partial / "told.json").write_text(json.dumps(told), encoding="utf-8")
        partial.rename(place)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
