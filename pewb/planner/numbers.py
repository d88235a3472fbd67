"""Numbers of virtual tensors, for methods whose initialisation or forward asks for some.

What an initialisation does is recorded, as data that keeps no tensor alive. Where a number is asked, or how many elements
fulfil a condition, the steps that led there are taken for real, on the CPU, provided that they began from nothing: indices
that were drawn, masks made of them, sizes. Any other tensor comes from the weights or the inputs, which have no numbers.
Then others stand for them: an array is drawn, and what is made of it has numbers too; a count is one, a condition that is
asked alone does not hold (it guards an exception), a mask of weights holds everywhere, and one of tokens (examples, tokens),
which a head reads, once in each row.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from heapq import heapify, heappop, heappush
from typing import Any

import torch
from torch.utils._pytree import tree_map, tree_map_only

_CPU = torch.device("cpu")
_META = torch.device("meta")
_MOST_KEPT = 2**20
"""Bytes of a storage whose numbers are kept, once they are worked out: whoever asks for one often asks for the next."""


@dataclass(frozen=True)
class _Place:
    """A tensor, by where it lies in which storage."""

    storage: int
    storage_bytes: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


@dataclass(frozen=True)
class _Step:
    """An operation, with places for tensors, and the storages that it reads, that it makes, and that it makes or changes."""

    function: Any
    args: Any
    kwargs: Any
    outputs: list[Any]
    reads: set[int]
    makes: set[int]
    writes: set[int]


class Numbers:
    """What the numbers of virtual tensors are, as far as anything is known of them."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.is_drawn = False
        """Whether an initialisation was given drawn numbers for what it makes of the weights."""
        self._is_recording = False
        self._steps: list[_Step] = []
        self._writers: dict[int, list[int]] = {}
        """From a storage's number to the steps that make or change it."""
        self._known: dict[int, tuple[int, torch.UntypedStorage]] = {}
        """From a storage's number to its content after so many of these steps."""
        self._storages: dict[int, tuple[Any, int]] = {}
        self._count = 0

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record what is done inside."""
        self._is_recording = True
        try:
            yield
        finally:
            self._is_recording = False

    def _add(self, step: _Step) -> None:
        for storage in step.writes:
            self._writers.setdefault(storage, []).append(len(self._steps))
        self._steps.append(step)

    def record(self, function: Any, args: Any, kwargs: Any, output: Any) -> None:
        """Record an operation that was done, if it made or changed anything."""
        if not self._is_recording or _is_view(function):
            return
        given, made = tensors_in((args, kwargs)), tensors_in(output)
        if any(one.is_sparse for one in [*given, *made]):
            return
        known = {one.untyped_storage()._cdata for one in given}
        makes = {self._number(one) for one in made if one.is_meta and one.untyped_storage()._cdata not in known}
        changes = {self._number(one) for one in _changed(function, args, kwargs) if one.is_meta}
        if not makes and not changes:
            return
        takes_shape_only = function._opname.endswith("_like") or function._opname.startswith("new_")
        reads = set() if takes_shape_only else {self._number(one) for one in given if one.is_meta}
        args, kwargs = tree_map_only(torch.Tensor, self._kept, (args, kwargs))
        outputs = [self._kept(one) for one in made]
        self._add(_Step(function, args, kwargs, outputs, reads, makes, makes | changes))

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a real tensor with the numbers of `tensor`, or with drawn ones."""
        if not tensor.is_meta:
            return tensor
        with torch.no_grad(), torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch(), _seeds_kept():
            known = self._worked_out(tensor)
            if known is not None:
                return known
            return self._stand_in(tensor)

    def _stand_in(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point():
            if self._is_recording:
                return self._drawn_from_now_on(tensor)
            return torch.randn(tensor.shape, dtype=tensor.dtype, device=_CPU)
        ones = torch.ones(tensor.shape, dtype=tensor.dtype, device=_CPU)
        if tensor.dtype == torch.bool and tensor.ndim == 2 and not self._is_recording:
            ones[:, 1:] = False
        return ones

    def item(self, tensor: torch.Tensor) -> bool | int | float:
        """Return the number of `tensor`, which has one element, or what stands for it."""
        with torch.no_grad(), torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            known = self._worked_out(tensor)
            if known is not None:
                number: bool | int | float = known.item()
                return number
        if tensor.dtype == torch.bool:
            return False
        return 1.0 if tensor.is_floating_point() else 1

    def run(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Return virtual tensors of the shapes that `function`, which needs numbers, would return."""
        args, kwargs = tree_map_only(torch.Tensor, self.of, (args, _on_cpu(kwargs)))
        return tree_map_only(torch.Tensor, _virtual, function(*args, **kwargs))

    def with_places(self, indices: Any) -> list[torch.Tensor | None]:
        """Return `indices` of a tensor with the places where a mask holds instead of the mask."""
        found: list[torch.Tensor | None] = []
        for one in indices:
            if one is not None and one.dtype == torch.bool and one.is_meta:
                found += [_virtual(part) for part in self.of(one).nonzero().unbind(1)]
            else:
                found.append(one)
        return found

    def _drawn_from_now_on(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return drawn numbers for what is made of the weights; what the initialisation makes of these has numbers then."""
        self.is_drawn = True
        place = self._kept(tensor)
        whole = replace(place, size=(place.storage_bytes // tensor.element_size(),), stride=(1,), offset=0)
        storage = {place.storage}
        draw = torch.ops.aten.normal_.default
        self._add(_Step(draw, (whole,), {}, [], set(), storage, storage))
        drawn = self._worked_out(tensor)
        assert drawn is not None
        return drawn

    def _worked_out(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return the numbers of `tensor` by taking the steps to it again; None: they do not begin from nothing."""
        place = self._kept(tensor)
        num_writers = len(self._writers.get(place.storage, ()))
        known = self._known.get(place.storage)
        if known and known[0] == num_writers:
            return _placed(place, {place.storage: known[1]}).clone()
        steps = self._steps_to(place.storage)
        if steps is None:
            return None
        with _seeds_kept():
            return self._again(steps, place, num_writers)

    def _again(self, steps: list[int], place: _Place, num_writers: int) -> torch.Tensor:
        """Take `steps` for real, and return what is at `place` then."""
        storages: dict[int, torch.UntypedStorage] = {}

        def real(value: Any) -> Any:
            return _placed(value, storages) if isinstance(value, _Place) else value

        for index in steps:
            step = self._steps[index]
            args, kwargs = tree_map(real, (step.args, step.kwargs))
            torch.manual_seed(index)  # so that a step draws the same whenever it is taken
            outputs = tensors_in(step.function(*args, **_on_cpu(kwargs)))
            for output, kept in zip(outputs, step.outputs, strict=False):
                if isinstance(kept, _Place) and kept.storage in step.makes:
                    _placed(kept, storages).copy_(output)
        found = _placed(place, storages)
        if place.storage_bytes > _MOST_KEPT:
            return found
        self._known[place.storage] = num_writers, storages[place.storage]
        return found.clone()

    def _steps_to(self, storage: int) -> list[int] | None:
        """Return in order the steps on which the content of `storage` depends; None: on something not made by steps, too."""
        needed = {storage}
        waiting = [-index for index in self._writers.get(storage, ())]
        heapify(waiting)
        chosen: list[int] = []
        while waiting and needed:
            index = -heappop(waiting)
            step = self._steps[index]
            if index in chosen[-1:] or needed.isdisjoint(step.writes):
                continue
            chosen.append(index)
            for other in step.reads - needed:
                if other not in self._writers:
                    return None
                for writer in self._writers[other]:
                    if writer < index:
                        heappush(waiting, -writer)
            needed = needed - step.makes | step.reads
        return None if needed else chosen[::-1]

    def _kept(self, tensor: torch.Tensor) -> Any:
        """Return the place of a virtual tensor, or a real one as it is, unseen by whoever follows tensors."""
        if not tensor.is_meta:
            with torch._C._DisableTorchDispatch():
                return tensor.detach().clone()
        storage = tensor.untyped_storage()
        return _Place(
            self._number(tensor),
            storage.nbytes(),
            tuple(tensor.shape),
            tensor.stride(),
            int(tensor.storage_offset()),
            tensor.dtype,
        )

    def _number(self, tensor: torch.Tensor) -> int:
        """Return the number of the tensor's storage; an address may be used again, a number is not."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._storages:
            self._count += 1
            self._storages[key] = weakref.ref(storage, partial(self._forget, key)), self._count
        return self._storages[key][1]

    def _forget(self, key: int, _: Any) -> None:
        del self._storages[key]


def virtual_together(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the arguments with real tensors made virtual, as an operation on virtual tensors takes no others but numbers."""
    together: tuple[Any, Any] = tree_map_only(
        torch.Tensor, lambda one: one if one.is_meta or not one.ndim else _virtual(one), (args, kwargs)
    )
    return together


def _virtual(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_META)


def _placed(place: _Place, storages: dict[int, torch.UntypedStorage]) -> torch.Tensor:
    """Return the real tensor at `place`; its storage is made if need be."""
    if place.storage not in storages:
        storages[place.storage] = torch.empty(place.storage_bytes, dtype=torch.uint8, device=_CPU).untyped_storage()
    empty = torch.empty(0, dtype=place.dtype, device=_CPU)
    return empty.set_(storages[place.storage], place.offset, place.size, place.stride)


def _on_cpu(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments for a real tensor, drawn from torch's own random state."""
    changed = {"device": _CPU, "generator": None}
    return kwargs | {name: value for name, value in changed.items() if name in kwargs}


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the tensors among an operation's arguments or results, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for one in value for tensor in tensors_in(one)]


@cache
def _is_view(function: Any) -> bool:
    """Return whether an operator says that it only shares what it is given."""
    schema = function._schema
    return not schema.is_mutable and any(one.alias_info for one in schema.returns)


def _changed(function: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """Return the tensors that an operator changes in place."""
    schema = function._schema
    if not schema.is_mutable:
        return []
    named = [*zip(schema.arguments, args, strict=False), *((one, kwargs.get(one.name)) for one in schema.arguments)]
    return tensors_in([value for one, value in named if one.alias_info is not None and one.alias_info.is_write])


@contextmanager
def _seeds_kept() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield
