"""Texts, and pairs of texts, as the heads read them that have one answer for the whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pewb.batching import Tokenised, kept
from pewb.errors import InputError


def tokenised_texts(
    tokenizer: Any, texts: Sequence[tuple[str, ...]], max_tokens: int, cache: Path | None = None
) -> Tokenised:
    """Tokenise `texts` (singles or pairs), cutting each to `max_tokens` tokens.

    A tokenizer that puts nothing between the texts of a pair, as most decoders' do, gets them on two lines.
    """
    if not separates_pairs(tokenizer):
        texts = [("\n".join(pair),) for pair in texts]
    return kept(cache, tokenizer, texts, max_tokens, "texts", lambda: _tokenised(tokenizer, texts, max_tokens))


def separates_pairs(tokenizer: Any) -> bool:
    """Return whether a tokenizer puts something between the texts of a pair, more than that the second begins like a first."""
    if not tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add(pair=False):
        return False
    if not tokenizer.is_fast:
        return True
    encoding = tokenizer("a", "a")
    places, ids = encoding.sequence_ids(), encoding["input_ids"]
    first, last, second = places.index(0), len(places) - 1 - places[::-1].index(0), places.index(1)
    if second < first:  # a tokenizer that pads and writes from the right
        return True
    return bool(ids[last + 1 : second] != ids[:first])


def _tokenised(tokenizer: Any, texts: Sequence[tuple[str, ...]], max_tokens: int) -> Tokenised:
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
    return Tokenised(features, num_cut)


def see_offsets(tokenizer: Any, what: str) -> None:
    """See that a tokenizer says which characters a token stands for, which `what` need.

    Raises:
        InputError: it does not.
    """
    if not tokenizer.is_fast:
        raise InputError(
            f"backbone: its tokenizer does not say where in a text its tokens are, which {what} need;"
            " name a backbone with a tokenizer.json"
        )
