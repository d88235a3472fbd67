"""8-bit and 4-bit storage of the frozen linear layers, by bitsandbytes through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pewb.recipe import Quantization


def quantization_config(quantization: Quantization, keep: Sequence[str], compute_type: torch.dtype) -> Any:
    """Return transformers' configuration for `quantization`, or None for none.

    Args:
        quantization: the recipe's section.
        keep: modules that stay unquantised: what is trained directly (the head, top layers). It must be told: without it
            a newly made head becomes a 4-bit layer that has no quantisation state, and fails at the first forward.
        compute_type: the type in which 4-bit weights are multiplied.
    """
    if quantization.kind == "none":
        return None
    from transformers import BitsAndBytesConfig

    if quantization.kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(keep))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.kind,
        bnb_4bit_use_double_quant=quantization.double,
        bnb_4bit_compute_dtype=compute_type,
        llm_int8_skip_modules=list(keep),
    )


def keep_trainable_after_evaluation(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights in place.

    On a CPU with AVX512-BF16 its first forward in `eval()` packs the weights, and the next training step fails.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def is_quantized(parameter: nn.Parameter) -> bool:
    """Return whether `parameter` holds integer codes rather than numbers."""
    return not parameter.is_floating_point()


def num_weights(parameter: nn.Parameter) -> int:
    """Return how many weights `parameter` stands for: a 4-bit one holds two in each byte."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else parameter.numel()
