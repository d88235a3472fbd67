"""Operations on virtual sparse tensors, of which PyTorch can make one and do no more."""

from __future__ import annotations

from typing import Any

import torch

_META = torch.device("meta")


def run_sparse(function: Any, args: Any, kwargs: Any) -> Any:
    """Return what an operation on virtual sparse tensors does; no element is given twice, so none are added up."""
    name, first = function._opname, args[0]
    if name == "_coalesce":
        return _with_values(first, first._indices().clone(), first._values().clone())
    if name == "sparse_mask":
        return _with_values(args[1], args[1]._indices(), torch.empty_like(args[1]._values(), dtype=first.dtype))
    if name in ("_to_dense", "_sparse_addmm"):
        return torch.empty(first.shape, dtype=first.dtype, device=_META)
    if name == "mm":
        return torch.empty(first.shape[0], args[1].shape[1], dtype=first.dtype, device=_META)
    if name == "add_":
        return first
    return function(*args, **kwargs)


def _with_values(like: torch.Tensor, indices: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    make = torch.ops.aten._sparse_coo_tensor_with_dims_and_tensors.default
    return make(
        like.sparse_dim(),
        like.dense_dim(),
        list(like.shape),
        indices,
        values,
        dtype=values.dtype,
        layout=torch.sparse_coo,
        device=_META,
        is_coalesced=True,
    )
