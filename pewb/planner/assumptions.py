"""What a plan takes for granted, in words."""

from __future__ import annotations

from pewb.planner.estimate import MARGIN, Estimate
from pewb.planner.target import Target
from pewb.recipe import Recipe
from pewb.units import format_bytes


def assumptions(recipe: Recipe, target: Target, found: Estimate | None) -> list[str]:
    """Return what was assumed for a row on a target, a sentence each."""
    if found is None:
        return []
    training = recipe.training
    told = [
        f"every example is {training.max_tokens} tokens long (training.max_tokens) and one of them padded, so no mask is dropped",
        f"attention by the kernels that PyTorch takes on such a device: {', '.join(found.facts.kernels) or 'none of its own'}",
        _casting(found.facts.precision, target.kind),
        f"within {MARGIN:.0%} of the limit the answer is 'borderline'",
        f"the evaluation takes {found.evaluation_batch_size} examples at once (it halves its batch until it fits)",
    ]
    if recipe.generation:
        told.append(
            "texts are written (generation) as many at once as fit; the keys and values that are kept for it are not planned"
        )
    if target.kind == "cuda":
        told.append(
            "the caching allocator with expandable segments, which pewb's runs turn on; 'no' only where the live tensors alone"
            " are too large, since it gives back what it holds unused before it fails"
        )
        if training.optimizer == "adamw":
            told.append("AdamW's foreach implementation, PyTorch's choice on a GPU")
    if recipe.quantization.kind in ("nf4", "fp4"):
        told.append("4-bit products dequantise their weights first, as bitsandbytes does for more than a few rows")
    gpu = target.gpu
    if gpu is not None:
        told.append(
            f"of {format_bytes(gpu.memory_bytes)}, {format_bytes(gpu.context_bytes)} go to the CUDA context and"
            f" {format_bytes(gpu.workspace_bytes)} to cuBLAS's workspaces"
        )
        if gpu.assumption:
            told.append(gpu.assumption)
    return told


def _casting(precision: str, kind: str) -> str:
    if precision in ("bf16", "fp16"):
        return f"{precision} autocast as PyTorch defines it for {kind}; frozen weights stored in {precision}, trained ones in fp32"
    return f"{precision}: no autocast"
