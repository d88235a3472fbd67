"""Memory of a phase: live tensors, what the allocator holds, the process's resident set."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pewb.errors import OutOfMemoryError
from pewb.kernels.heap import give_freed_memory_back
from pewb.quantization import dequantized_product
from pewb.record import Peak
from pewb.units import format_bytes

_SAMPLING_SECONDS = 0.02


class LiveTensors(TorchDispatchMode):
    """Follows every storage that the operations inside it make, and keeps the largest sum of live bytes."""

    def __init__(self, existing: Iterable[torch.Tensor], limit_bytes: int | None = None) -> None:
        """Start from the storages of the tensors `existing`; more than `limit_bytes` raises `OutOfMemoryError`."""
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self.limit_bytes = limit_bytes
        self._sizes: dict[int, int] = {}
        self._watches: dict[int, Any] = {}
        for tensor in existing:
            self._follow(tensor)
        self._check()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and follow what it returned."""
        if function.namespace == "bitsandbytes" and function._opname == "gemm_4bit" and not args[0].is_cuda:
            with self:
                return dequantized_product(*args, **(kwargs or {}))
        output = self._run(function, args, kwargs or {})
        if isinstance(output, torch.Tensor):
            self._follow(output)
        else:
            for tensor in tree_leaves(output):
                if isinstance(tensor, torch.Tensor):
                    self._follow(tensor)
        self._check()
        return output

    def _run(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(*args, **kwargs)

    def _follow(self, tensor: torch.Tensor) -> None:
        if tensor.is_sparse:
            self._follow(tensor._indices())
            self._follow(tensor._values())
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        size = storage.nbytes()
        known = self._sizes.get(key)
        if known is None:
            self._watches[key] = weakref.ref(storage, lambda _, key=key: self._forget(key))  # type: ignore[misc]
        if known != size:  # an in-place resize changes a storage that is known
            self._sizes[key] = size
            self._changed(key, known or 0, size)

    def _forget(self, key: int) -> None:
        del self._watches[key]
        self._changed(key, self._sizes.pop(key), 0)

    def _changed(self, key: int, before: int, after: int) -> None:
        """Take note that the storage `key` now takes `after` bytes."""
        self.live_bytes += after - before

    def _check(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        if self.limit_bytes is not None and self.live_bytes > self.limit_bytes:
            raise OutOfMemoryError(
                f"{format_bytes(self.live_bytes)} of tensors are more than the limit of {format_bytes(self.limit_bytes)}"
            )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that the device or the machine has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def release_cached_memory(device: torch.device) -> None:
    """Give back what the allocator holds unused, so that one phase's is not counted in the next one's peak."""
    gc.collect()
    if device.type == "cpu":
        give_freed_memory_back()
    else:
        torch.accelerator.empty_cache()


class PhaseMemory:
    """The memory peak of one phase (training, evaluation); its parts may be measured one after another."""

    def __init__(self, device: torch.device, limit_bytes: int | None = None) -> None:
        """Measure on `device`, which is kept to `limit_bytes`."""
        self._has_statistics = device.type in ("cuda", "xpu")
        self._limit = limit_bytes
        self._allocated: int | None = None
        self._reserved: int | None = None
        self._resident: int | None = None

    @property
    def peak(self) -> Peak:
        """What was measured so far."""
        return Peak(
            peak_allocated_bytes=self._allocated, peak_reserved_bytes=self._reserved, peak_resident_bytes=self._resident
        )

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure what runs inside: on a GPU by the allocator's own statistics, everywhere the resident set."""
        if self._has_statistics:
            torch.accelerator.reset_peak_memory_stats()
        with _resident_sampled(self._saw_resident):
            try:
                yield
            finally:
                if self._has_statistics:
                    self._allocated = max(self._allocated or 0, torch.accelerator.max_memory_allocated())
                    self._reserved = max(self._reserved or 0, torch.accelerator.max_memory_reserved())

    @contextmanager
    def tracked(self, existing: Callable[[], Iterable[torch.Tensor]]) -> Iterator[None]:
        """Follow live tensors where the device has no statistics of its own; costs time, so for a few steps only.

        `existing` gives the tensors that are there before: parameters, buffers, gradients, optimizer state.
        """
        if self._has_statistics:
            yield
            return
        mode = LiveTensors(existing(), self._limit)
        with torch.compiler.set_stance("force_eager"), mode:  # what runs in compiled code is not seen
            yield
        self._allocated = max(self._allocated or 0, mode.peak_bytes)  # not of an attempt that ran out of memory

    def _saw_resident(self, resident_bytes: int) -> None:
        self._resident = max(self._resident or 0, resident_bytes)


@contextmanager
def _resident_sampled(saw: Callable[[int], None]) -> Iterator[None]:
    """Tell `saw` the process's resident set now, at the end, and every few hundredths of a second between."""
    process = psutil.Process()
    done = threading.Event()

    def sample() -> None:
        while not done.wait(_SAMPLING_SECONDS):
            saw(process.memory_info().rss)

    saw(process.memory_info().rss)
    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        saw(process.memory_info().rss)


def tensors_of(model: torch.nn.Module, optimizer: Any | None = None) -> Iterator[torch.Tensor]:
    """Yield parameters, their gradients, quantisation state, buffers and what else modules hold, and the optimizer's state.

    PEFT keeps the indices of sparse methods in dictionaries beside a layer's buffers.
    """
    for parameter in model.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
        yield from _quantization_state(parameter)
    for module in model.modules():
        yield from (one for one in tree_leaves(vars(module)) if isinstance(one, torch.Tensor))
    if optimizer is not None:
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def _quantization_state(parameter: torch.nn.Parameter) -> Iterator[torch.Tensor]:
    """Yield the scales that bitsandbytes keeps beside quantised weights."""
    state = getattr(parameter, "quant_state", None)
    inner = getattr(state, "state2", None)
    candidates = [getattr(parameter, name, None) for name in ("SCB", "CB")]
    candidates += [getattr(part, name, None) for part in (state, inner) for name in ("absmax", "code", "offset")]
    yield from (tensor for tensor in candidates if isinstance(tensor, torch.Tensor))
