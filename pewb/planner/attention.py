"""Which attention kernel a device takes, and that kernel's own operator on virtual tensors.

PyTorch chooses among its kernels by the device, which a virtual tensor does not have; left to itself it would take the
one that keeps the whole (tokens, tokens) matrix. The choice follows `sdp_utils.cpp` of PyTorch 2.13: flash attention where
there is no mask and the type has 16 bits, else the memory-efficient kernel; on a CPU flash attention unless there is
dropout; else the mathematical definition.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.nn import functional

from pewb.planner.target import DeviceKind

Kernel = Literal["flash", "memory-efficient", "math"]

_ops = torch.ops.aten
_FLASH_HEAD_SIZE = 256
_BIAS_ALIGNMENT = 16
"""The memory-efficient kernel reads a bias whose rows begin at multiples of so many elements."""


def kernel(
    device: DeviceKind, capability: tuple[int, int], query: torch.Tensor, mask: torch.Tensor | None, dropout: float
) -> Kernel:
    """Return the kernel that `device` takes for `query`, (batch, heads, tokens, head size)."""
    if device == "cpu":
        return "math" if dropout or (mask is not None and mask.requires_grad) else "flash"
    has_16_bits = query.dtype in (torch.float16, torch.bfloat16)
    if mask is None and has_16_bits and capability >= (8, 0) and query.shape[-1] <= _FLASH_HEAD_SIZE:
        return "flash"
    if query.dtype == torch.bfloat16 and capability < (8, 0):
        return "math"
    return "memory-efficient"


def attend(
    device: DeviceKind,
    capability: tuple[int, int],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Any, Kernel]:
    """Return what `scaled_dot_product_attention` would, and the kernel that was taken."""
    chosen = kernel(device, capability, query, attn_mask, dropout_p)
    bias = _as_bias(attn_mask, query)
    if chosen == "math":
        output = _ops._scaled_dot_product_attention_math(
            query, key, value, bias, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
        return output[0], chosen
    if device == "cpu":
        if enable_gqa:
            key, value = _repeated(key, query), _repeated(value, query)
        output = _ops._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, dropout_p, is_causal, attn_mask=bias, scale=scale
        )
        return output[0], chosen
    if chosen == "flash":
        output = _ops._scaled_dot_product_flash_attention(
            *_aligned(query, key, value), dropout_p, is_causal, False, scale=scale
        )
        return output[0][..., : query.shape[-1]], chosen
    if enable_gqa:
        key, value = _repeated(key, query), _repeated(value, query)
    if bias is not None:
        missing = -bias.shape[-1] % _BIAS_ALIGNMENT
        if missing:
            bias = functional.pad(bias, (0, missing))[..., : bias.shape[-1]]
        bias = bias.expand(*query.shape[:-1], key.shape[-2])
    needs_grad = torch.is_grad_enabled() and any(one.requires_grad for one in (query, key, value))
    output = _ops._scaled_dot_product_efficient_attention(
        query, key, value, bias, needs_grad, dropout_p, is_causal, scale=scale
    )
    return output[0], chosen


def _repeated(tensor: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Return keys or values, each head as often as query heads share it."""
    times = query.shape[1] // tensor.shape[1]
    return tensor if times == 1 else tensor.repeat_interleave(times, 1)


def _as_bias(mask: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor | None:
    """Return a mask of what may be seen as what is added to the scores."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    seen, unseen = (torch.full((), value, dtype=query.dtype, device=mask.device) for value in (0.0, float("-inf")))
    return torch.where(mask, seen, unseen)


def _aligned(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Return the tensors with head sizes that are multiples of eight, as the flash kernel reads them."""
    missing = -tensors[0].shape[-1] % 8
    return [functional.pad(tensor, (0, missing)) if missing else tensor for tensor in tensors]
