"""Attention on a CPU by plain matrix products, where PyTorch's own kernels are slower.

Measured with forward and backward on 2 cores in bfloat16, 32 sequences of 28 tokens in 12 heads: 21 ms by PyTorch's flash
kernel, which it takes where there is no dropout, 6 ms by its mathematical one, 5 ms by this; with dropout 8 and 6.

The weights of long texts would be the largest tensor of a layer, and are computed again for the gradient: 8 texts of 472 tokens in
9 heads of 64 take 70 ms instead of 57 ms, and 36 MB less in each layer. By the flash kernel they take 110 ms.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pewb.kernels.dropout import noise

NAME = "pewb_cpu"
_LONGEST = 512
"""Beyond so many tokens PyTorch's flash kernel is faster, where it can be had (no dropout), and holds less."""

_PIECE_BYTES = 16 * 2**20
"""Of recomputed weights at a time."""


def attend_plainly(model: Any) -> None:
    """Let the attentions of `model` that transformers would leave to PyTorch choose between both ways, in place."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    asks_for_name = re.search(
        r'_attn_implementation (==|in) .*"sdpa"', inspect.getsource(sys.modules[type(model).__module__])
    )
    if asks_for_name:  # it does more or less, by the name of its attention, and ours it does not know
        return
    if model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
        model.set_attn_implementation(NAME)


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return softmax(scaling · QKᵀ + mask) V, (batch, tokens, heads, head size), as transformers' attentions do.

    `query` is (batch, heads, tokens, head size); key and value may have fewer heads, and other tokens. What a query that may
    look at nothing sees is not defined; it is padding.
    """
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    needs_mask = is_causal and attention_mask is None and query.shape[2] > 1
    is_usual = options.get("position_bias") is None and options.get("softcap") is None and options.get("cache") is None
    is_square = query.shape[2] == key.shape[2]
    is_faster = dropout > 0 or (query.dtype == torch.bfloat16 and key.shape[2] <= _LONGEST)
    if not (is_usual and is_faster and (is_square or not needs_mask)):
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            **options,
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if needs_mask:
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    drawn = noise(query.new_empty(*query.shape[:3], key.shape[2]), dropout) if dropout else None
    is_long = key.shape[2] > 3 * query.shape[-1]  # one head's weights are larger than what they are made of
    if is_long and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        output: torch.Tensor = _Recomputed.apply(query, key, value, attention_mask, scaling, drawn)
    else:
        output = _weighted(_weights(query, key, attention_mask, scaling), value, drawn)
    return output.transpose(1, 2).contiguous(), None


def _weights(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scaling: float) -> torch.Tensor:
    """Return the softmax of the scores, (batch, heads, queries, keys)."""
    query = query * scaling
    if query.shape[2] == 1 and query.shape[1] == key.shape[1]:
        scores = (query * key).sum(-1).unsqueeze(2)  # several times as fast as a batch of products
    else:
        scores = _products(query, key.transpose(2, 3))
    if mask is not None:
        scores = scores.add_(_as_bias(mask, scores.dtype))
    return torch.softmax(scores, -1)


def _weighted(weights: torch.Tensor, value: torch.Tensor, drawn: torch.Tensor | None) -> torch.Tensor:
    """Return the sum of the values, (batch, heads, queries, head size), by weights of which dropout's noise leaves some."""
    if drawn is not None:
        weights = weights * drawn
    if weights.shape[2] == 1 and weights.shape[1] == value.shape[1]:
        return (weights.transpose(2, 3) * value).sum(2, keepdim=True)
    return _products(weights, value)


def _products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the product of each head of `left` with the head of `right`, (batch, heads, …), that its group shares."""
    shared = right.shape[1]
    if shared == left.shape[1]:
        return torch.matmul(left, right)
    folded = left.reshape(left.shape[0], shared, -1, left.shape[-1])
    return torch.matmul(folded, right).view(*left.shape[:3], right.shape[-1])


class _Recomputed(torch.autograd.Function):
    """Attention that keeps what it is given, and computes the weights again for the gradient, some examples at a time."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
        drawn: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value, mask, drawn)
        ctx.scaling = scaling
        pieces = [
            _weighted(_weights(one_query, one_key, one_mask, scaling), one_value, one_drawn)
            for one_query, one_key, one_value, one_mask, one_drawn in _pieces(query, key, value, mask, drawn)
        ]
        return torch.cat(pieces)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        found = []
        for query, key, value, mask, drawn, given in _pieces(*ctx.saved_tensors, gradient):
            weights = _weights(query, key, mask, ctx.scaling)
            batch, shared, keys, size = key.shape
            folded = (batch, shared, -1)  # the heads of a group, one below the other
            kept = weights if drawn is None else weights * drawn
            given = given.reshape(*folded, given.shape[-1])
            of_value = torch.matmul(kept.view(*folded, keys).transpose(2, 3), given)
            of_weights = torch.matmul(given, value.transpose(2, 3)).view_as(weights)
            if drawn is not None:
                of_weights = of_weights.mul_(drawn)
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_scores = of_scores.view(*folded, keys)
            of_query = torch.matmul(of_scores, key).view_as(query).mul_(ctx.scaling)
            of_key = torch.matmul(of_scores.transpose(2, 3), query.reshape(*folded, size)).mul_(ctx.scaling)
            found.append((of_query, of_key, of_value))
        return (*map(torch.cat, zip(*found, strict=True)), None, None, None)


def _pieces(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    drawn: torch.Tensor | None,
    *others: torch.Tensor,
) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments for some examples at a time, as many as have `_PIECE_BYTES` of weights."""
    size = max(1, _PIECE_BYTES // (query[0, ..., 0].numel() * key.shape[2] * query.element_size()))
    for start in range(0, len(query), size):
        place = slice(start, start + size)
        is_common = mask is None or mask.dim() < 4 or len(mask) == 1
        yield (
            query[place],
            key[place],
            value[place],
            mask if mask is None or is_common else mask[place],
            None if drawn is None else drawn[place],
            *(one[place] for one in others),
        )


def _as_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to the scores: a finite number for what is masked, so that all masked is no NaN."""
    if mask.dtype != torch.bool:
        return mask.to(dtype).clamp_min(torch.finfo(dtype).min)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
