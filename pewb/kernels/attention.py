"""Attention by other ways than PyTorch's own choice, where that is slower: on a CPU by plain matrix products.

Measured with forward and backward on 2 cores in bfloat16, 32 sequences of 28 tokens in 12 heads: 21 ms by PyTorch's flash
kernel, which it takes where there is no dropout, 6 ms by its mathematical one, 5 ms by this; with dropout 8 and 6.

The weights of long texts would be the largest tensor of a layer, and are computed again for the gradient: 8 texts of 472 tokens in
9 heads of 64 take 70 ms instead of 57 ms, and 36 MB less in each layer. By the flash kernel they take 110 ms.
"""

from __future__ import annotations

import inspect
import re
import sys
from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pewb.kernels.dropout import noise
from pewb.kernels.recompute import recomputed

NAME = "pewb_cpu"
_LONGEST = 512
"""Beyond so many tokens PyTorch's flash kernel is faster, where it can be had (no dropout), and holds less."""

_PIECE_BYTES = 16 * 2**20
"""Of recomputed weights at a time."""


def leave_out_cudnn() -> None:
    """Let PyTorch attend by its own kernels on a GPU, not by cuDNN's, which it takes first from Hopper on where there is a mask.

    cuDNN plans anew for every length of a batch, which takes longer than many a step
    (https://github.com/modelscope/FunASR/issues/3704: 1.05 s instead of 0.1 s on a B200).
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


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
    if is_long and torch.is_grad_enabled():
        output = _in_pieces(query, key, value, attention_mask, scaling, drawn)
    else:
        output = _attended(query, key, value, attention_mask, scaling, drawn)
    return output.transpose(1, 2).contiguous(), None


def _in_pieces(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    drawn: torch.Tensor | None,
) -> torch.Tensor:
    """Return what `_attended` does, some examples at a time, whose weights are computed again for the gradient."""
    size = max(1, _PIECE_BYTES // (query[0, ..., 0].numel() * key.shape[2] * query.element_size()))
    count = -(-len(query) // size)
    is_common = mask is None or mask.dim() < 4 or len(mask) == 1
    masks = [mask] * count if is_common else mask.split(size)  # type: ignore[union-attr]
    noises = [None] * count if drawn is None else drawn.split(size)
    pieces = zip(*(one.split(size) for one in (query, key, value)), masks, noises, strict=True)
    return torch.cat(
        [
            recomputed(partial(_attended, mask=its_mask, scaling=scaling, drawn=its_noise), *tensors)
            for *tensors, its_mask, its_noise in pieces
        ]
    )


def _attended(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    drawn: torch.Tensor | None,
) -> torch.Tensor:
    """Return what each query sees, (batch, heads, queries, head size); of the weights dropout's noise `drawn` leaves some."""
    weights = _weights(query, key, mask, scaling)
    if drawn is not None:
        weights = weights * drawn
    if weights.shape[2] == 1 and weights.shape[1] == value.shape[1]:
        return (weights.transpose(2, 3) * value).sum(2, keepdim=True)
    return _products(weights, value)


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


def _products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the product of each head of `left` with the head of `right`, (batch, heads, …), that its group shares."""
    shared = right.shape[1]
    if shared == left.shape[1]:
        return torch.matmul(left, right)
    folded = left.reshape(left.shape[0], shared, -1, left.shape[-1])
    return torch.matmul(folded, right).view(*left.shape[:3], right.shape[-1])


def _as_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to the scores: a finite number for what is masked, so that all masked is no NaN."""
    if mask.dtype != torch.bool:
        return mask.to(dtype).clamp_min(torch.finfo(dtype).min)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
