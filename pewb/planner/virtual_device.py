"""A device without hardware: tensors on `meta` behave as on a CPU or a CUDA GPU as far as memory goes.

What the `meta` device lacks is answered explicitly: which attention and dropout kernels run, how autocast casts, and
what a number that is read back would be ("is the mask all ones?": no). Everything is undone at the end of the context.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils.checkpoint import checkpoint

from pewb.planner.attention import attend
from pewb.planner.casting import Rule, rules
from pewb.planner.numbers import Numbers
from pewb.planner.target import DeviceKind

META = torch.device("meta")
_FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray)
"""Functions that are given numbers, so that their tensors have some."""
_READERS = (torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__)
"""Functions that give out a tensor's numbers; `item` and its like are operations, which the ledger sees."""


class VirtualDevice(TorchFunctionMode):
    """Runs functions on virtual tensors as `kind` would; inside `active`."""

    def __init__(self, kind: DeviceKind, capability: tuple[int, int] = (8, 0)) -> None:
        """Behave as a CPU, or as a CUDA GPU of the compute `capability`."""
        super().__init__()
        self.kind = kind
        self.capability = capability
        self.kernels: Counter[str] = Counter()
        """How often each attention kernel was taken."""
        self.numbers = Numbers()
        """What is read back out of tensors."""
        self.on_host: set[int] = set()
        """Storages that a GPU reads out of the host's memory (a paged optimizer's state)."""
        self._constructors = _device_constructors()
        self._rules = rules(kind)
        self._casts: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Be the device for what runs inside; tensors that are made there are virtual."""
        with ExitStack() as stack:
            for owner, name, replacement in self._replacements():
                stack.enter_context(patch.object(owner, name, replacement))
            stack.enter_context(torch.sparse.check_sparse_tensor_invariants(False))  # said, or PyTorch warns
            stack.enter_context(self)
            yield

    def _replacements(self) -> list[tuple[Any, str, Any]]:
        """Return what is replaced for the time being: in which module or class, under which name, by what."""
        import bitsandbytes
        import peft.tuners.boft.layer
        import peft.tuners.lora.layer
        import torch._meta_registrations
        import torch.optim.optimizer as optimizers
        import transformers

        autocast_state = [(torch, "is_autocast_enabled"), (torch, "get_autocast_dtype")]
        autocast_state.append((torch.amp, "is_autocast_available"))
        found: list[tuple[Any, str, Any]] = [
            (owner, name, _answering_for_meta(getattr(owner, name), self.kind)) for owner, name in autocast_state
        ]
        found += [
            (torch.autocast, "__init__", _autocast_for_meta(torch.autocast.__init__)),
            (torch, "clear_autocast_cache", self._clear_casts(torch.clear_autocast_cache)),
            (transformers.modeling_utils, "checkpoint", partial(checkpoint, context_fn=self._recomputing)),
            (peft.tuners.boft.layer, "get_fbd_cuda", lambda: None),  # it compiles a kernel that saves time only
        ]
        # A fused step makes nothing, so it has nothing to do on virtual tensors.
        found.append((optimizers, "_get_fused_kernels_supported_devices", lambda: ["meta"]))
        # Strides of results differ between devices; unasked, PyTorch answers for CUDA.
        found.append((torch._meta_registrations, "device_hint", lambda _: self.kind))
        kernels = bitsandbytes.functional
        found += [
            (kernels, "create_dynamic_map", _on_the_cpu(kernels.create_dynamic_map)),
            (kernels, "get_paged", self._get_paged),
            (kernels, "fill", lambda *_: None),
            (peft.tuners.lora.layer, "loftq_init", _loftq_init),
        ]
        if self.kind == "cpu":
            found.append((bitsandbytes, "matmul", _matmul_of_a_cpu))
        return found

    @contextmanager
    def autocast(self, dtype: torch.dtype | None) -> Iterator[None]:
        """Cast as autocast to `dtype` does; None: do nothing."""
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            yield

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function as the device would."""
        kwargs = kwargs or {}
        if function in self._constructors and kwargs.get("device") is None:
            # LoHa and LoKr throw a coin, torch.rand(1): to decide, a number is needed.
            is_coin = function is torch.rand and args in ((1,), ((1,),))
            is_real = is_coin or (function in _FROM_DATA and not isinstance(args[0], torch.Tensor))
            kwargs = kwargs | {"device": "cpu" if is_real else META}
        if function in _READERS and args[0].is_meta:
            args = (self.numbers.of(args[0]), *args[1:])
        if function is torch.Tensor.cpu and args[0].is_meta:
            return args[0]
        if function is torch.Tensor.to and args[0].is_meta:
            args = tuple(map(_staying, args))
            kwargs = {name: _staying(one) for name, one in kwargs.items()}
        rule = self._rules.get(function)
        if rule and torch.is_autocast_enabled("meta"):
            args, kwargs = self._cast(rule, function, args, kwargs)
        if function is torch.unique_consecutive and args[0].is_meta:
            # Heads look whether every text has as many end tokens: they have.
            return torch.zeros(1, dtype=args[0].dtype)
        if function is functional.scaled_dot_product_attention and _first(args, kwargs, "query").is_meta:
            output, kernel = attend(self.kind, self.capability, *args, **kwargs)
            self.kernels[kernel] += 1
            return output
        if self.kind == "cuda" and function in (functional.dropout, torch.dropout):
            return _fused_dropout(*args, **kwargs)
        if self.kind == "cuda" and function is torch.ops.bitsandbytes.int8_scaled_mm.default:
            return _int8_product(*args, **kwargs)
        return function(*args, **kwargs)

    def _recomputing(self) -> tuple[AbstractContextManager[None], AbstractContextManager[Any]]:
        """Return the contexts of a checkpoint's forward and of its recomputation, in a backward, which has left this one."""
        return nullcontext(), self

    def _get_paged(self, *shape: int, dtype: torch.dtype = torch.float32, device: Any = None) -> torch.Tensor:
        """Return a tensor of the host's memory; no operation that makes it is seen."""
        with torch._C._DisableTorchDispatch():
            tensor = torch.empty(shape, dtype=dtype, device=META)
        self.on_host.add(tensor.untyped_storage()._cdata)
        return tensor

    def _clear_casts(self, clear: Callable[[], None]) -> Callable[[], None]:
        """Return `clear`, which autocast calls at the end of its outermost context, to clear the virtual casts too."""

        def clear_both() -> None:
            self._casts.clear()
            clear()

        return clear_both

    def _cast(self, rule: Rule, function: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        target = torch.get_autocast_dtype("meta")
        if rule == "float32_result":
            first = next((one for one in args if isinstance(one, torch.Tensor)), None)
            if first is None or first.dtype not in (torch.float16, torch.bfloat16) or kwargs.get("dtype"):
                return args, kwargs
            return args, kwargs | {"dtype": torch.float32}
        if rule == "widest":
            types = {one.dtype for one in _tensors([*args, *kwargs.values()]) if one.is_floating_point()}
            if len(types) < 2:
                return args, kwargs
            target = torch.float32
        elif rule == "float32":
            target = torch.float32

        def cast(tensor: torch.Tensor) -> torch.Tensor:
            return self._as(tensor, target)

        changed = {name: _with_tensors(cast, one) for name, one in kwargs.items()}
        return tuple(_with_tensors(cast, one) for one in args), changed

    def _as(self, tensor: torch.Tensor, target: torch.dtype) -> torch.Tensor:
        """Return `tensor` in the type `target`; a weight's copy is kept for the whole context, as autocast keeps it."""
        if not tensor.is_floating_point() or tensor.dtype == target or tensor.dtype == torch.float64:
            return tensor
        is_kept = tensor.is_leaf and tensor.requires_grad and tensor.dtype == torch.float32 and target != torch.float32
        if not is_kept or not torch.is_autocast_cache_enabled():
            return tensor.to(target)
        if id(tensor) not in self._casts:
            self._casts[id(tensor)] = tensor, tensor.to(target)
        return self._casts[id(tensor)][1]


def _staying(one: Any) -> Any:
    """Return an argument of `to`, the virtual device in the place of the CPU: the one memory is all that there is."""
    return META if isinstance(one, str | torch.device) and str(one) == "cpu" else one


def _with_tensors(change: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """Return `value` with its tensors changed, also those in lists."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, list | tuple) and any(isinstance(one, torch.Tensor | list | tuple) for one in value):
        return type(value)([_with_tensors(change, one) for one in value])
    return value


def _first(args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    return args[0] if args else kwargs[name]


def _tensors(values: list[Any]) -> list[torch.Tensor]:
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(list(value))
    return found


def _fused_dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, train: bool = True
) -> torch.Tensor:
    """Return CUDA's dropout, which keeps a mask of one byte for each element."""
    return torch.native_dropout(input, p, True)[0] if training and train and 0 < p < 1 else input


def _int8_product(
    inputs: torch.Tensor,
    weight: torch.Tensor,
    row_scales: torch.Tensor,
    column_scales: torch.Tensor,
    bias: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return bitsandbytes' 8-bit product by the steps of its CUDA kernels: in 32-bit integers, in fp16, in the type asked for."""
    product = torch.ops.bitsandbytes.int8_linear_matmul.default(inputs, weight)
    half = torch.empty(product.shape, dtype=torch.float16, device=META)
    return half.to(dtype or torch.float16)


def _loftq_init(
    weight: torch.Tensor, num_bits: int, reduced_rank: int, num_iter: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a weight and the low-rank matrices that LoftQ would find for it, without looking for them."""
    rows, columns = weight.shape
    return weight, weight.new_empty(reduced_rank, columns), weight.new_empty(rows, reduced_rank)


def _matmul_of_a_cpu(
    inputs: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor | None = None,
    state: Any = None,
    threshold: float = 0.0,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return bitsandbytes' 8-bit product, in training by the road that it takes on a CPU."""
    from bitsandbytes.autograd._functions import MatMul8bitFp, MatMul8bitLt

    road = MatMul8bitFp if state.is_training else MatMul8bitLt
    product: torch.Tensor = road.apply(inputs, weight, out, bias, state)
    return product


def _on_the_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, which works out numbers, with real tensors."""

    def compute(*args: Any, **kwargs: Any) -> Any:
        with torch.device("cpu"):
            return function(*args, **kwargs)

    return compute


def _answering_for_meta(function: Callable[..., Any], kind: DeviceKind) -> Callable[..., Any]:
    """Return `function` of a device's type that answers for `meta` as for the CPU, whose autocast state stands in.

    Called without a type it means CUDA, as PyTorch's own does: a CPU's autocast is not seen that way.
    """
    stood_for = ("meta", "cuda", None) if kind == "cuda" else ("meta",)

    def answer(device_type: str | None = None) -> Any:
        if device_type in stood_for:
            return function("cpu")
        return function() if device_type is None else function(device_type)

    return answer


def _autocast_for_meta(init: Callable[..., None]) -> Callable[..., None]:
    def __init__(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        init(self, "cpu" if device_type == "meta" else device_type, *args, **kwargs)

    return __init__
