"""A text that is written anew: an encoder reads a source, and a decoder writes its target."""

from __future__ import annotations

from typing import Any

import torch

from pewb.batching import Inputs, Tokenised
from pewb.device import moved
from pewb.heads.tokens import Tokens
from pewb.tasks import Split


class TargetTokens(Tokens):
    """The loss of an encoder-decoder, whose decoder reads the target one token behind."""

    def logits(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return the logits of the target's tokens, which the model itself moves on for its decoder."""
        labels = moved(labels, inputs["input_ids"].device)
        shifted = model.prepare_decoder_input_ids_from_labels(labels=labels)
        return super().logits(model, inputs | {"decoder_input_ids": shifted}, labels)

    def _tokenised(self, tokenizer: Any, split: Split, max_tokens: int) -> Tokenised:
        """Return sources and, as labels, targets, each with its special tokens."""
        from datasets import Dataset

        options: dict[str, Any] = {"split_special_tokens": True}
        sources, targets = [pair[0] for pair in split.texts], [pair[1] for pair in split.texts]
        whole = (tokenizer(sources, **options)["input_ids"], tokenizer(text_target=targets, **options)["input_ids"])
        num_cut = sum(max(len(source), len(target)) > max_tokens for source, target in zip(*whole, strict=True))
        options |= {"truncation": True, "max_length": max_tokens}
        read = tokenizer(sources, **options)["input_ids"]
        columns = {"input_ids": read, "attention_mask": [[1] * len(ids) for ids in read]}
        columns["labels"] = tokenizer(text_target=targets, **options)["input_ids"]
        return Tokenised(Dataset.from_dict(columns), num_cut)

    def _lengths(self, features: Any) -> list[int]:
        pairs = zip(features["input_ids"], features["labels"], strict=True)
        return [len(source) + len(target) for source, target in pairs]
