"""Floating-point operations: how many a step takes, and how many a second the machine can do at most."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count


def flops_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> int:
    """Return the floating-point operations of one operation: those of products, two for each multiplication."""
    formula: Any = _FLOPS.get(function._opname) or flop_registry.get(function.overloadpacket)
    return int(formula(*args, **kwargs, out_val=output)) if formula is not None else 0


@dataclass
class StepFlops:
    """Operations of steps that were followed, and what they were made of."""

    linear: int = 0
    """In proportion to tokens."""
    attention: int = 0
    """In proportion to pairs of tokens."""
    tokens: int = 0
    """Padding included."""
    pairs: int = 0

    def __add__(self, other: StepFlops) -> StepFlops:
        """Return the operations of both."""
        return StepFlops(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def of(self, tokens: int, pairs: int) -> float:
        """Return the operations that so many tokens in so many pairs take, without padding."""
        if not self.tokens:
            return 0.0
        return self.linear / self.tokens * tokens + self.attention / self.pairs * pairs


class FlopCounting(TorchDispatchMode):
    """Adds the operations inside to a `StepFlops`."""

    def __init__(self, counts: StepFlops) -> None:
        """Add to `counts`."""
        super().__init__()
        self._counts = counts

    def __enter__(self) -> Self:
        """Count from now on."""
        self._uncompiled = torch.compiler.set_stance("force_eager")  # what runs in compiled code is not seen
        self._uncompiled.__enter__()
        return super().__enter__()  # type: ignore[no-any-return]

    def __exit__(self, *error: Any) -> None:
        """Count no more."""
        super().__exit__(*error)
        self._uncompiled.__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count it."""
        output = function(*args, **(kwargs or {}))
        if flops := flops_of(function, args, kwargs or {}, output):
            if function._opname in ("bmm", "baddbmm") or "attention" in function._opname:
                self._counts.attention += flops
            else:
                self._counts.linear += flops
        return output


_LEAST_PRODUCTS = 8
_PEAK_SECONDS = 0.3
"""Long enough that a moment without other work is among them: times are compared by this speed."""


def matmul_peak(device: torch.device, dtype: torch.dtype, cache: Path, name: str) -> float | None:
    """Return the most floating-point operations a second that products of square matrices reach on `device`.

    None if there is no memory for them.

    It is measured now, in a third of a second or so, the best of many products; `cache`, a file, keeps the best that was ever seen
    on the device `name`, since a machine that is busy looks slow.
    """
    size = 1024 if device.type == "cpu" else 8192
    best = 0.0
    try:
        left, right, product = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(3))
        begun, count = time.perf_counter(), 0
        while count < _LEAST_PRODUCTS or time.perf_counter() - begun < _PEAK_SECONDS:
            count += 1
            _wait_for(device)
            started = time.perf_counter()
            torch.mm(left, right, out=product)
            _wait_for(device)
            best = max(best, 2 * size**3 / (time.perf_counter() - started))
    except torch.OutOfMemoryError:
        return None
    key = (
        f"{name}, {torch.get_num_threads() if device.type == 'cpu' else 1} threads, {dtype}, torch {torch.__version__}"
    )
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if best > known.get(key, 0.0):
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(json.dumps(known | {key: best}), encoding="utf-8")
        except OSError:
            pass
    return max(best, float(known.get(key, 0.0)))


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def _product_flops(inputs: torch.Tensor, weights: torch.Tensor, *_: Any, **__: Any) -> int:
    """Return the operations of a product of inputs (…, in) with weights (out, in)."""
    return 2 * int(inputs.numel()) * int(weights.shape[0])


def _mixed_product_flops(inputs: torch.Tensor, codes: torch.Tensor, weights: torch.Tensor, *_: Any, **__: Any) -> int:
    """Return the operations of a product of 8-bit codes; columns with outliers are few."""
    return _product_flops(codes, weights)


def _packed_product_flops(inputs: torch.Tensor, packed: torch.Tensor, shape: Sequence[int], *_: Any, **__: Any) -> int:
    """Return the operations of a product with weights (out, in) of 4 bits, two of which are packed in a byte."""
    return 2 * int(inputs.numel()) * int(shape[0])


def _attention_flops(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, *_for_each_head(query, key, value)))


def _attention_backward_flops(
    gradient: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(gradient.shape, query.shape, *_for_each_head(query, key, value)))


def _for_each_head(query: torch.Tensor, *tensors: torch.Tensor) -> list[tuple[int, ...]]:
    """Return the shapes of keys and values, (batch, heads, tokens, size), if each head of `query` had its own."""
    return [(*one.shape[:1], query.shape[1], *one.shape[2:]) for one in tensors]


_KERNELS = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
_FLOPS = {
    "linear": _product_flops,
    "int8_scaled_mm": _product_flops,
    "int8_linear_matmul": _product_flops,
    "int8_mixed_scaled_mm": _mixed_product_flops,
    "gemm_4bit": _packed_product_flops,
    **{f"_scaled_dot_product_{kernel}": _attention_flops for kernel in _KERNELS},
    **{f"_scaled_dot_product_{kernel}_backward": _attention_backward_flops for kernel in _KERNELS},
}
"""What PyTorch's own counter does not know: products inside another operator, bitsandbytes' products, a CPU's attention, and
(before 2.13) heads that share keys and values."""
