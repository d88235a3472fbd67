"""A model's layers compiled by PyTorch."""

from __future__ import annotations

from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer

from pewb.errors import RefusedError


def compile_layers(model: Any, backend: str = "inductor") -> None:
    """Let each layer of `model` be compiled when it is first computed, in place.

    Layer by layer: they share the code, so one is compiled for all, and what stands between them stays as it is.
    `backend` is what makes code of PyTorch's graphs.

    Raises:
        RefusedError: the architecture's layers can't be told.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise RefusedError(
            f"training.compile: no layers are known of a '{model.config.model_type}' model, or none is left to train;"
            " leave compile out"
        )
    for layer in layers:
        layer.compile(dynamic=True, backend=backend)
