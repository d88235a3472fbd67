"""8-bit and 4-bit storage of the frozen linear layers, by bitsandbytes through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pewb.recipe import Quantization

_BLOCK_SIZE = 64
"""Weights that share a scale in 4-bit storage (bitsandbytes' default)."""
_SCALES_BLOCK_SIZE = 256
"""Scales that share a scale where they are quantised too."""


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


def dequantized_product(
    inputs: torch.Tensor,
    codes: torch.Tensor,
    shape: Sequence[int],
    absmax: torch.Tensor,
    blocksize: int,
    quant_type: str,
    bias: torch.Tensor | None = None,
    absmax_8bit: torch.Tensor | None = None,
    absmax_code: torch.Tensor | None = None,
    absmax_offset: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return bitsandbytes' 4-bit product as its kernel computes it for more than a few rows: dequantised first.

    Memory is followed through this in place of the kernel, inside which nothing can be followed.

    Args:
        inputs: (…, in).
        codes: of the weights, two in each byte.
        shape: (out, in) of the weights.
        absmax: a scale for each block, or for each block of the codes `absmax_8bit` of the scales.
        blocksize: weights that share a scale.
        quant_type: nf4 or fp4.
        bias: (out,).
        absmax_8bit: the scales' codes, where they are quantised too.
        absmax_code: what those codes stand for.
        absmax_offset: the scales' mean.
    """
    operators = torch.ops.bitsandbytes
    if absmax_8bit is not None:
        scales = operators.dequantize_blockwise.default(absmax_8bit, absmax, absmax_code, 256, torch.float32)
        absmax = scales + absmax_offset
    weights = operators.dequantize_4bit.default(codes, absmax, blocksize, quant_type, shape, inputs.dtype)
    return nn.functional.linear(inputs, weights, bias)


def quantize_virtually(model: Any, config: Any) -> None:
    """Store the layers of a model on the meta device as loading with `config` would, codes and scales without numbers.

    transformers chooses the layers, as it does for real ones; the layers are bitsandbytes' own.
    """
    from transformers.quantizers.auto import AutoHfQuantizer

    quantizer = AutoHfQuantizer.from_config(config, pre_quantized=False)
    quantizer.preprocess_model(model, device_map=None)
    store_virtually(model)
    quantizer.postprocess_model(model)


def store_virtually(model: Any) -> None:
    """Give every layer of bitsandbytes' on the meta device codes and scales, if it has none (any more).

    A strategy that changes quantised weights (OLoRA) leaves them to be quantised by the move to a device, which the meta
    device does not do.
    """
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    for module in model.modules():
        if isinstance(module, Linear4bit) and module.weight.dtype.is_floating_point:
            _store_in_4_bits(module)
        elif isinstance(module, Linear8bitLt) and module.weight.dtype.is_floating_point:
            _store_in_8_bits(module)


def _store_in_4_bits(module: Any) -> None:
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn import Params4bit

    def made(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    weight = module.weight
    num_blocks = -(-weight.shape.numel() // _BLOCK_SIZE)
    inner = None
    if weight.compress_statistics:
        num_outer = -(-num_blocks // _SCALES_BLOCK_SIZE)
        inner = QuantState(absmax=made(num_outer), code=made(256), blocksize=_SCALES_BLOCK_SIZE, dtype=torch.float32)
    state = QuantState(
        absmax=made(num_blocks, dtype=torch.float32 if inner is None else torch.uint8),
        shape=weight.shape,
        code=made(16),
        blocksize=_BLOCK_SIZE,
        quant_type=weight.quant_type,
        dtype=torch.float32,  # of what was loaded
        offset=None if inner is None else made(),
        state2=inner,
    )
    module.weight = Params4bit(
        made((weight.shape.numel() + 1) // 2, 1, dtype=torch.uint8),
        requires_grad=False,
        quant_state=state,
        blocksize=_BLOCK_SIZE,
        compress_statistics=weight.compress_statistics,
        quant_type=weight.quant_type,
        module=module,
        bnb_quantized=True,
    )
    module.quant_state = state


def _store_in_8_bits(module: Any) -> None:
    from bitsandbytes.nn import Int8Params

    codes = torch.empty(module.weight.shape, dtype=torch.int8, device="meta")
    scales = torch.empty(module.weight.shape[0], dtype=torch.float32, device="meta")
    module.weight = Int8Params(codes, requires_grad=False, has_fp16_weights=False, CB=codes, SCB=scales)
    module.state.CB = module.state.SCB = None
    module.state.threshold = 0.0  # which columns are outliers depends on numbers
