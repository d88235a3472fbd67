"""What operations on virtual tensors return, remembered by the shapes and types that go in.

Working out a result's shape takes PyTorch about a tenth of a millisecond, in Python; a transformer's layers ask the same
again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

_empty = torch.ops.aten.empty_strided.default
_META = torch.device("meta")

_Spec = tuple[tuple[int, ...], tuple[int, ...], torch.dtype] | None


class ResultsCache:
    """Calls operators on virtual tensors; of those that make new tensors it remembers which."""

    def __init__(self) -> None:
        self._specs: dict[Any, tuple[type, list[_Spec]]] = {}
        self._makes_new: dict[Any, bool] = {}

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what `function` does."""
        makes_new = self._makes_new.get(function)
        if makes_new is None:
            makes_new = self._makes_new[function] = _is_functional(function)
        if not makes_new:
            return function(*args, **kwargs)
        key = _key(function, args, kwargs)
        if key is None:
            return function(*args, **kwargs)
        known = self._specs.get(key)
        if known is not None:
            kind, specs = known
            made = [spec and _empty(spec[0], spec[1], dtype=spec[2], device=_META) for spec in specs]
            return made[0] if kind is torch.Tensor else kind(made)
        output = function(*args, **kwargs)
        self._remember(function, key, args, kwargs, output)
        return output

    def _remember(self, function: Any, key: Any, args: Any, kwargs: Any, output: Any) -> None:
        outputs = [output] if isinstance(output, torch.Tensor) else output
        if not isinstance(outputs, list | tuple) or not all(
            one is None or (type(one) is torch.Tensor and one.is_meta and not one.is_sparse) for one in outputs
        ):
            return
        storages = [one.untyped_storage()._cdata for one in outputs if one is not None]
        given = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
        if len(set(storages)) < len(storages) or given & set(storages):
            self._makes_new[function] = False  # a view after all, which its schema does not say
            return
        specs = [one if one is None else (tuple(one.shape), one.stride(), one.dtype) for one in outputs]
        kind = torch.Tensor if isinstance(output, torch.Tensor) else list if isinstance(output, list) else tuple
        self._specs[key] = kind, specs


def _is_functional(function: Any) -> bool:
    """Return whether an operator says that it changes and shares nothing."""
    schema = function._schema
    return not any(one.alias_info for one in [*schema.arguments, *schema.returns]) and bool(schema.returns)


def _key(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what tells this call from others; None for one that makes a tensor of nothing."""
    parts: list[Any] = [function]
    tensors = _described(args, parts)
    if kwargs:
        for name, value in kwargs.items():
            parts.append(name)
            tensors += _described((value,), parts)
    if not tensors:
        return None
    try:
        key = tuple(parts)
        hash(key)
    except TypeError:
        return None
    return key


def _described(values: Any, parts: list[Any]) -> int:
    tensors = 0
    for value in values:
        if isinstance(value, torch.Tensor):
            if not value.is_meta:
                parts.append(object())
            parts.append((value.shape, value.stride(), value.dtype))
            tensors += 1
        elif isinstance(value, list | tuple):
            parts.append(len(value))
            tensors += _described(value, parts)
        else:
            parts.append((value, type(value)))  # 1, 1.0 and True are the same to a dictionary
    return tensors
