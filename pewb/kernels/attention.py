"""Attention on a CPU by plain matrix products, where PyTorch's own kernels are slower.

Measured with forward and backward on 2 cores in bfloat16, 32 sequences of 28 tokens in 12 heads: 21 ms by PyTorch's flash
kernel, which it takes where there is no dropout, 6 ms by its mathematical one, 5 ms by this; with dropout 8 and 6.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pewb.kernels.dropout import noise

NAME = "pewb_cpu"
_LONGEST = 512
"""Beyond so many tokens PyTorch's flash kernel is faster, where it can be had (no dropout), and holds less."""


def attend_plainly(model: Any) -> None:
    """Let the attentions of `model` that transformers would leave to PyTorch choose between both ways, in place."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
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
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if needs_mask:
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    is_one = query.shape[2] == 1  # then its products are sums, several times as fast as a batch of products
    scores = (query * key).sum(-1).unsqueeze(2) if is_one else torch.matmul(query, key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores.add_(_as_bias(attention_mask, scores.dtype))
    weights = torch.softmax(scores, -1)
    if dropout:
        weights = weights * noise(weights, dropout)
    output = (weights.transpose(2, 3) * value).sum(2, keepdim=True) if is_one else torch.matmul(weights, value)
    return output.transpose(1, 2).contiguous(), None


def _as_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to the scores: a finite number for what is masked, so that all masked is no NaN."""
    if mask.dtype != torch.bool:
        return mask.to(dtype).clamp_min(torch.finfo(dtype).min)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
