"""Who holds which bytes while a virtual step runs: by category, at the peak, and as a trace for an allocator."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from pewb.measurement.memory import LiveTensors
from pewb.planner.numbers import Numbers, virtual_together
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

    def after(self, before: dict[Category, int], now: dict[Category, int]) -> Moment:
        """Return the moment as it is once what stays (weights, the optimizer's state) has grown from `before` to `now`."""
        grown = {name: now[name] - before[name] for name in ("weights", "optimizer")}
        by_category = {name: size + grown.get(name, 0) for name, size in self.by_category.items()}
        return replace(self, total=self.total + sum(grown.values()), by_category=by_category)


@dataclass(frozen=True)
class Part:
    """A part of a step that has ended."""

    peak: Moment
    live: dict[Category, int]
    """At its end."""
    end: int
    """Length of the trace then."""


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

        On a GPU, which gives memory out in larger granules, neither do real tensors: they are the host's. `numbers` answers
        what is read back out of virtual tensors.
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
        self.parts: list[Part] = []
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
        has_virtual, has_real, has_sparse = _kinds_of(args, kwargs)
        if has_sparse:
            return run_sparse(function, args, kwargs)
        together = virtual_together(args, kwargs) if has_virtual and has_real else (args, kwargs)
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
        if key not in self._sizes:
            return  # it is elsewhere
        size = self._rounded(self._sizes[key])
        before = self._categories[key]
        self._by_category[before] -= size
        self._by_category[category] += size
        self._categories[key] = category

    def restart(self) -> None:
        """Look for the peak anew from here, and begin the trace with what is live."""
        self.trace = [(self._serials[key], size) for key, size in self._sizes.items()]
        self.parts = []
        self._peak_from_here()

    def end_part(self) -> None:
        """Look for the peak of another part from here; the trace goes on."""
        self.parts.append(Part(self.peak, self.live(), len(self.trace)))
        self._peak_from_here()

    def _peak_from_here(self) -> None:
        self.peak = Moment(self.live_bytes, dict(self._by_category))
        self.peak_bytes = self.live_bytes

    def live(self) -> dict[Category, int]:
        """Return the bytes that are live now."""
        return dict(self._by_category)

    def _follow(self, tensor: torch.Tensor) -> None:
        if not tensor.is_meta and self._granule > 1:
            return
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


def _kinds_of(args: Any, kwargs: dict[str, Any]) -> tuple[bool, bool, bool]:
    """Return whether an operation is given virtual tensors, real ones, and virtual sparse ones."""
    virtual = real = sparse = False
    for one in args if not kwargs else [*args, *kwargs.values()]:
        if isinstance(one, torch.Tensor):
            if one.is_meta:
                virtual = True
                sparse = sparse or one.is_sparse
            else:
                real = True
        elif isinstance(one, list | tuple) and one and not isinstance(one[0], int):
            inner = _kinds_of(one, {})
            virtual, real, sparse = virtual or inner[0], real or inner[1], sparse or inner[2]
    return virtual, real, sparse


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
