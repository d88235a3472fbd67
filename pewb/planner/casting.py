"""What autocast does to the operands of each function, on a CPU and on a CUDA GPU, as tables.

Virtual tensors have no autocast of their own, so their device applies these. The names are PyTorch's own
(ATen/autocast_mode.h); a test holds them against the operators for which PyTorch registers autocast, and the table of the
CPU against what it does to real tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch.nn import functional

from pewb.planner.target import DeviceKind

Rule = Literal["lower", "float32", "float32_result", "widest"]
"""Cast the operands to autocast's type, to float32, or to the widest type among them; or only compute in float32."""

_LOWER = (
    "conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d bmm mm addmm addbmm baddbmm linear"
    " matmul vecdot einsum scaled_dot_product_attention"
)
_LOSSES = (
    "binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy hinge_embedding_loss"
    " huber_loss kl_div l1_loss margin_ranking_loss mse_loss multi_margin_loss multilabel_margin_loss nll_loss"
    " poisson_nll_loss smooth_l1_loss soft_margin_loss triplet_margin_loss"
)
_TABLES: dict[DeviceKind, dict[Rule, str]] = {
    "cuda": {
        "widest": "addcdiv addcmul atan2 bilinear cross dot grid_sample index_put scatter_add tensordot vdot",
        "float32": f"{_LOSSES} acos asin cosh erfinv exp expm1 log log10 log1p log2 reciprocal rsqrt sinh tan pow softplus"
        " layer_norm rms_norm group_norm cosine_similarity cdist pdist dist renorm logsumexp interpolate",
        "float32_result": "prod softmax log_softmax cumprod cumsum sum norm vector_norm matrix_norm nuclear_norm",
        "lower": f"{_LOWER} addmv addr mv chain_matmul multi_dot prelu",
    },
    "cpu": {
        "widest": "stack cat index_copy",
        "float32": f"{_LOSSES} avg_pool3d adaptive_avg_pool3d cdist ctc_loss grid_sample inverse polar prod quantile"
        " nanquantile stft trace pinverse",
        "float32_result": "",
        "lower": _LOWER,
    },
}


@cache
def rules(device: DeviceKind) -> dict[Callable[..., Any], Rule]:
    """Return the rule for each function that autocast treats on `device`; the others take their operands as they are."""
    found: dict[Callable[..., Any], Rule] = {}
    for rule, names in _TABLES[device].items():
        for name in names.split():
            for place in (torch, functional, torch.Tensor, torch.linalg):
                function = getattr(place, name, None)
                if callable(function):
                    found[function] = rule
    found[torch.Tensor.__matmul__] = found[torch.Tensor.__rmatmul__] = "lower"
    if device == "cuda":
        for name in ("__pow__", "__rpow__", "__rtruediv__"):
            found[getattr(torch.Tensor, name)] = "float32"
    return found
