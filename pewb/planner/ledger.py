"""Who holds which bytes while a virtual step runs: by category, at the peak, and as a trace for an allocator."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable
from operator import itemgetter
from typing import Any

import torch

from pewb.measurement.flops import flops_of
from pewb.measurement.memory import LiveTensors
from pewb.planner.numbers import Numbers, virtual_together
from pewb.planner.results_cache import ResultsCache
from pewb.planner.sparse import run_sparse
from pewb.planner.trace import CATEGORIES, Category, Change

_OF_A_LEAF = 2**63
"""From here on an autograd node's number says that it adds to a parameter's gradient, wherever the backward pass is."""


class Ledger(LiveTensors):
    """Follows virtual storages; each belongs to a category, which may change (an activation that becomes a gradient).

    To which layer a change belongs is told by the module that is running; in a backward pass by the one whose operation it
    derives; outside of the model, as in an optimizer's step, by the tensor at hand. A layer goes on until a module is
    entered that is not within it, so that what is done between two layers is the earlier one's. What is freed when no layer
    is at work belongs to the one that it was made in.
    """

    def __init__(
        self,
        existing: Iterable[torch.Tensor],
        granule: int,
        numbers: Numbers,
        elsewhere: Collection[int] = frozenset(),
    ) -> None:
        """Start with `existing` as weights; storages `elsewhere`, in other memory, do not count.

        Bytes are rounded up to `granule`, in which the device's allocator gives memory out. On a GPU, where it is more than
        one, real tensors do not count either: they are the host's. `numbers` answers what is read back out of virtual tensors.
        """
        self._elsewhere = elsewhere
        self._numbers = numbers
        self._granule = granule
        self._categories: dict[int, Category] = {}
        self._layers: dict[int, int | None] = {}
        self._by_category: dict[Category, int] = dict.fromkeys(CATEGORIES, 0)
        self.category: Category = "weights"
        """Of what is made from now on."""
        self.trace: list[Change] = []
        self.parts: list[int] = []
        """Lengths of the trace at the end of each part of a step."""
        self.flops = 0
        self._serials: dict[int, int] = {}
        self._count = 0
        self._results = ResultsCache()
        self._open: list[tuple[str, int | None]] = []
        self._entered: list[tuple[int, str, int | None]] = []
        """From which autograd node on which module and layer."""
        self._operation = ""
        self._module = ""
        self._layer: int | None = None
        self._is_outside = True
        """Of the model, and of a backward pass through it."""
        self._sweep = 0
        super().__init__(existing)

    def _run(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation on virtual tensors; what is read back as a number is answered."""
        if function is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return self._numbers.item(args[0])
        self._operation = function._opname
        self._find_place(args)
        has_virtual, has_real, has_sparse = _kinds_of(args, kwargs)
        if has_sparse:
            return run_sparse(function, args, kwargs)
        together = virtual_together(args, kwargs) if has_virtual and has_real else (args, kwargs)
        output = self._run_dense(function, *together)
        self._numbers.record(function, args, kwargs, output)
        self.flops += flops_of(function, args, kwargs, output)
        if self._is_outside and isinstance(output, list | tuple) and args and isinstance(args[0], list | tuple):
            self._follow_each(args[0], output)
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

    def enter(self, module: str, layer: int | None) -> None:
        """Take note that `module` begins to compute, which is in `layer`."""
        self._open.append((module, layer))
        self._layer = layer
        self._note()

    def leave(self) -> None:
        """Take note that the module that began last has ended."""
        self._open.pop()
        self._note()

    def _note(self) -> None:
        self._module = self._open[-1][0] if self._open else ""
        self._entered.append((torch._C._autograd._get_sequence_nr(), self._module, self._layer))

    def _find_place(self, args: tuple[Any, ...]) -> None:
        """Find out in which module and layer an operation on `args` is."""
        node: Any = torch._C._current_autograd_node()
        is_outside = node is None and not self._open
        if is_outside != self._is_outside:
            self._is_outside = is_outside
            self._sweep += 1
        if node is not None:
            number = node._sequence_nr()
            if number < _OF_A_LEAF and self._entered:
                place = max(bisect_right(self._entered, number, key=itemgetter(0)) - 1, 0)
                _, name, self._layer = self._entered[place]
                self._module = f"backward of {name or 'the loss'}"
        elif self._open:
            self._module = self._open[-1][0]
        else:
            self._module = ""
            first = args[0] if args else None
            layer = self._layer
            if isinstance(first, torch.Tensor):
                layer = self._layer_of(first)
            elif isinstance(first, list | tuple) and first and isinstance(first[0], torch.Tensor):
                layer = None
            if layer != self._layer:
                self._sweep += self._layer is None
                self._layer = layer
                self._note()

    def _follow_each(self, inputs: Any, outputs: Any) -> None:
        """Follow the results of an operation on many tensors at once, each of which belongs where its input does."""
        self.begin_sweep()
        for given, made in zip(inputs, outputs, strict=False):
            if isinstance(given, torch.Tensor) and isinstance(made, torch.Tensor):
                self._layer = self._layer_of(given)
                self._follow(made)
        self.begin_sweep()

    def _layer_of(self, tensor: torch.Tensor) -> int | None:
        if tensor.is_sparse:
            return None
        return self._layers.get(tensor.untyped_storage()._cdata, self._layer)

    def belongs(self, tensor: torch.Tensor, category: Category, layer: int | None = None) -> None:
        """Count the storage of `tensor` under `category` from now on, and with `layer` if that is given."""
        self._follow(tensor)
        key = tensor.untyped_storage()._cdata
        if key not in self._sizes:
            return  # it is elsewhere
        if layer is not None:
            self._layers[key] = layer
        before = self._categories[key]
        if before == category:
            return
        size = self._rounded(self._sizes[key])
        self._by_category[before] -= size
        self._by_category[category] += size
        self._categories[key] = category
        self._add(key, self._sizes[key])

    def restart(self) -> None:
        """Begin the trace anew, with what is live."""
        self._entered = []
        self._module, self._layer, self._is_outside = "", None, True
        self._sweep = 1
        self.parts = []
        self.trace = []
        for key, size in self._sizes.items():
            self._add(key, size)
        self.begin_sweep()

    def end_part(self) -> None:
        """Let a part of a step end here."""
        self.parts.append(len(self.trace))
        self.begin_sweep()

    def begin_sweep(self) -> None:
        """Take note that what follows may go through the layers anew."""
        self._sweep += 1
        self._layer = None

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

    def _add(self, key: int, size: int) -> None:
        layer = self._layers[key] if self._layer is None else self._layer
        self.trace.append(
            Change(self._serials[key], size, self._categories[key], self._operation, self._module, layer, self._sweep)
        )

    def _changed(self, key: int, before: int, after: int) -> None:
        if before == 0:
            self._count += 1
            self._serials[key] = self._count
            self._categories[key] = self.category
            self._layers[key] = self._layer
        self._add(key, after)
        before, after = self._rounded(before), self._rounded(after)
        self._by_category[self._categories[key]] += after - before
        super()._changed(key, before, after)
        if after == 0:
            del self._serials[key], self._categories[key], self._layers[key]


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
