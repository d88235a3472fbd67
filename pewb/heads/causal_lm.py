"""A text that is continued: every position predicts the token after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from pewb.batching import IGNORED, Tokenised
from pewb.errors import InputError
from pewb.heads.tokens import Tokens
from pewb.tasks import Split


class NextTokens(Tokens):
    """The loss of a causal language model."""

    def targets(self, num_positions: int, labels: torch.Tensor) -> torch.Tensor:
        """Return the labels moved one position on; virtual tokens stand before the text."""
        return functional.pad(labels, (num_positions - labels.shape[1], 1), value=IGNORED)[:, 1:]

    def _tokenised(self, tokenizer: Any, split: Split, max_tokens: int) -> Tokenised:
        """Return (prompt, completion) pairs as one sequence each, or plain texts in rows of `max_tokens`.

        Of a pair that is too long the prompt loses its beginning first: what is learned goes on from its end.
        Prompt and completion are tokenised apart, so that the labels begin where the completion does.
        """
        end = end_token(tokenizer)
        start = leading_tokens(tokenizer)
        texts = split.texts
        completions = plain_tokens(tokenizer, [pair[-1] for pair in texts])
        if len(texts[0]) == 1:
            return _blocks(start, [[*ids, end] for ids in completions], max_tokens)
        prompts = plain_tokens(tokenizer, [pair[0] for pair in texts])
        pairs = zip(prompts, completions, strict=True)
        return rows_of([[(prompt, False), ([*told, end], True)] for prompt, told in pairs], max_tokens, start)


Segment = tuple[list[int], bool]
"""Tokens, and whether they are learned."""


def rows_of(examples: Sequence[Sequence[Segment]], max_tokens: int, start: Sequence[int] = ()) -> Tokenised:
    """Return a row for each example: the tokens `start`, and its segments one after another, the last of which is learned.

    Of one that is too long what stands before the last segment loses its beginning; at least a quarter of the row is left for
    it, and the last segment loses its end.
    """
    from datasets import Dataset

    columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    num_cut = 0
    room = max_tokens - len(start)
    for *before, (last, _) in examples:
        read = [(token, token if learned else IGNORED) for tokens, learned in before for token in tokens]
        written = last[: max(1, room - min(len(read), room // 4))]
        kept = read[max(0, len(read) + len(written) - room) :]
        num_cut += len(kept) + len(written) < len(read) + len(last)
        ids = [*start, *(token for token, _ in kept), *written]
        labels = [*([IGNORED] * len(start)), *(label for _, label in kept), *written]
        columns["input_ids"].append(ids)
        columns["attention_mask"].append([1] * len(ids))
        columns["labels"].append([IGNORED, *labels[1:]])  # nothing stands before the first token
    return Tokenised(Dataset.from_dict(columns), num_cut)


def _blocks(start: Sequence[int], texts: Sequence[list[int]], max_tokens: int) -> Tokenised:
    """Return plain texts in rows of at most `max_tokens`, each of which begins with the tokens `start`.

    A row's first token is learned by nobody, unless one of `start` stands before it: so each begins with the last token of
    the row before.
    """
    from datasets import Dataset

    columns: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "labels": [], "_example": []}
    for number, tokens in enumerate(texts):
        begin = 0
        while True:
            before = [*start] if begin == 0 or start else [tokens[begin - 1]]
            block = tokens[begin : begin + max_tokens - len(before)]
            labels = [*([IGNORED] * len(before)), *block]
            columns["input_ids"].append([*before, *block])
            columns["attention_mask"].append([1] * len(labels))
            columns["labels"].append([IGNORED, *labels[1:]])
            columns["_example"].append(number)
            begin += len(block)
            if begin >= len(tokens):
                break
    return Tokenised(Dataset.from_dict(columns), 0)


def end_token(tokenizer: Any) -> int:
    """Return the token with which a text ends.

    Raises:
        InputError: there is none.
    """
    if tokenizer.eos_token_id is None:
        raise InputError("backbone: its tokenizer has no end token, so a model can't learn where to stop; name another")
    end: int = tokenizer.eos_token_id
    return end


def plain_tokens(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Return the tokens of each text, in which nothing is a special token."""
    encoding = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)
    ids: list[list[int]] = encoding["input_ids"]
    return ids


def leading_tokens(tokenizer: Any) -> list[int]:
    """Return the special tokens that the tokenizer puts before a text, such as Llama's begin token."""
    encoding = tokenizer("a", return_special_tokens_mask=True)
    is_special = encoding["special_tokens_mask"]
    return list(encoding["input_ids"][: is_special.index(0)])
