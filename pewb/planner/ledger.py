"""Who holds which bytes while a virtual step runs: by category, at the peak, and as a trace for an allocator."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from pewb.measurement.memory import LiveTensors
from pewb.planner.numbers import Numbers, tensors_in, virtual_together
from pewb.planner.results_cache import ResultsCache
from pewb.planner.sparse import run_sparse

Category = Literal["weights", "gradients", "optimizer", "activations", "temporaries"]
CATEGORIES: tuple[Category, ...] = ("weights", "gradients", "optimizer", "activations", "temporaries")


@dataclass
class Moment:
    """The live bytes at their largest so far."""

    total: int = 0
    by_category: dict[Category, int] = field(default_factory=dict)
    operation: str = ""
    module: str = ""
    sequence: int | None = None
    """Number of the autograd node, in a backward pass."""


class Ledger(LiveTensors):
    """Follows virtual storages; each belongs to a category, which may change (an activation that becomes a gradient).

    A byte count is rounded up to `granule`, in which the device's allocator gives memory out.
    """

    def __init__(
        self,
        existing: Iterable[torch.Tensor],
        granule: int,
        numbers: Numbers,
        elsewhere: Collection[int] = frozenset(),
    ) -> None:
        """Start with `existing` as weights; storages `elsewhere`, in other memory, do not count.

        `numbers` answers what is read back out of virtual tensors.
        """
        self._elsewhere = elsewhere
        self._numbers = numbers
        self._granule = granule
        self._categories: dict[int, Category] = {}
        self._by_category: dict[Category, int] = dict.fromkeys(CATEGORIES, 0)
        self.category: Category = "weights"
        """Of what is made from now on."""
        self.module = ""
        """In which the operations are."""
        self.peak = Moment()
        self.trace: list[tuple[int, int]] = []
        """Each change: which storage, and the bytes that it takes from then on."""
        self.flops = 0
        self._serials: dict[int, int] = {}
        self._count = 0
        self._operation = ""
        self._results = ResultsCache()
        super().__init__(existing)

    def _run(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation on virtual tensors; what is read back as a number is answered."""
        if function is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return self._numbers.item(args[0])
        self._operation = function._opname
        given = tensors_in((args, kwargs))
        if any(one.is_sparse and one.is_meta for one in given):
            return run_sparse(function, args, kwargs)
        together = args, kwargs
        if any(one.is_meta for one in given) and not all(one.is_meta for one in given):
            together = virtual_together(args, kwargs)
        output = self._run_dense(function, *together)
        self._numbers.record(function, args, kwargs, output)
        formula: Any = _FLOPS.get(function._opname) or flop_registry.get(function.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=output)
        return output

    def _run_dense(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if function is torch.ops.aten.index.Tensor:
            args = (args[0], self._numbers.with_places(args[1]))
        try:
            return self._results.call(function, args, kwargs)
        except NotImplementedError:
            if function._schema.is_mutable:
                raise
            return self._numbers.run(function, args, kwargs)

    def belongs(self, tensor: torch.Tensor, category: Category) -> None:
        """Count the storage of `tensor` under `category` from now on."""
        self._follow(tensor)
        key = tensor.untyped_storage()._cdata
        if key in self._elsewhere:
            return
        size = self._rounded(self._sizes[key])
        before = self._categories[key]
        self._by_category[before] -= size
        self._by_category[category] += size
        self._categories[key] = category

    def restart(self) -> None:
        """Look for the peak anew from here, and begin the trace with what is live."""
        self.trace = [(self._serials[key], size) for key, size in self._sizes.items()]
        self.peak = Moment(self.live_bytes, dict(self._by_category))
        self.peak_bytes = self.live_bytes

    def live(self) -> dict[Category, int]:
        """Return the bytes that are live now."""
        return dict(self._by_category)

    def _follow(self, tensor: torch.Tensor) -> None:
        if tensor.is_sparse or not self._elsewhere or tensor.untyped_storage()._cdata not in self._elsewhere:
            super()._follow(tensor)

    def _rounded(self, size: int) -> int:
        return -(-size // self._granule) * self._granule

    def _changed(self, key: int, before: int, after: int) -> None:
        if before == 0:
            self._count += 1
            self._serials[key] = self._count
            self._categories[key] = self.category
        self.trace.append((self._serials[key], after))
        before, after = self._rounded(before), self._rounded(after)
        self._by_category[self._categories[key]] += after - before
        super()._changed(key, before, after)
        if after == 0:
            del self._serials[key], self._categories[key]

    def _check(self) -> None:
        if self.live_bytes > self.peak_bytes:
            node = torch._C._current_autograd_node()
            self.peak.total = self.live_bytes
            self.peak.by_category = self._by_category.copy()
            self.peak.operation, self.peak.module = self._operation, self.module
            self.peak.sequence = node and node._sequence_nr()
        super()._check()


def _product_flops(inputs: torch.Tensor, weights: torch.Tensor, *_: Any, **__: Any) -> int:
    """Return the operations of a product of inputs (…, in) with weights (out, in)."""
    return 2 * int(inputs.numel()) * int(weights.shape[0])


def _attention_flops(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward_flops(
    gradient: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape))


_FLOPS = {
    "linear": _product_flops,
    "int8_scaled_mm": _product_flops,
    "_scaled_dot_product_flash_attention_for_cpu": _attention_flops,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward_flops,
}
"""What PyTorch's own counter does not know: products inside another operator, bitsandbytes' product, a CPU's attention."""
