"""Optimizers and learning rate schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pewb.recipe import Training


def make_optimizer(model: nn.Module, training: Training, device_kind: str | None = None) -> torch.optim.Optimizer:
    """Return the optimizer of the recipe over the trainable parameters; biases and norms (vectors) do not decay.

    `device_kind` is what a virtual model's device stands for; it decides how PyTorch's optimizers loop.

    With `lora_plus_ratio`, LoRA's B learns so many times as fast as its A (LoRA+, Hayou et al. 2024, arXiv:2402.12354,
    section 4), in the groups that PEFT makes for it: vectors learn as fast as B.
    """
    kind, options = _kind(training)
    if device_kind == "cuda" and kind.__module__.startswith("torch.") and "fused" not in options:
        options["foreach"] = True  # PyTorch's own choice for parameters on a GPU
    if training.lora_plus_ratio is not None:
        from peft.optimizers import create_loraplus_optimizer

        optimizer: torch.optim.Optimizer = create_loraplus_optimizer(
            model,
            kind,
            loraplus_lr_ratio=training.lora_plus_ratio,
            loraplus_weight_decay=training.weight_decay,
            **options,
        )
        return optimizer
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [one for one in trained if not _is_vector(one)], "weight_decay": training.weight_decay},
        {"params": [one for one in trained if _is_vector(one)], "weight_decay": 0.0},
    ]
    return kind([group for group in groups if group["params"]], **options)


def _is_vector(parameter: nn.Parameter) -> bool:
    """Return whether a parameter has one dimension, whatever it is stored as.

    PEFT keeps IA3's factors, which start at one and must not be drawn to zero, as (n, 1) or (1, n).
    """
    return int(parameter.numel()) == max(parameter.shape, default=1)


def _kind(training: Training) -> tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]:
    """Return the recipe's optimizer class and its options."""
    assert training.learning_rate is not None
    options: dict[str, Any] = {"lr": training.learning_rate}
    if training.optimizer == "sgd":
        return torch.optim.SGD, options | {"momentum": 0.9}
    if training.optimizer == "adamw":
        return torch.optim.AdamW, options | {"fused": True}
    import bitsandbytes

    kinds = {"adamw_8bit": bitsandbytes.optim.AdamW8bit, "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit}
    return kinds[training.optimizer], options


def make_schedule(optimizer: torch.optim.Optimizer, training: Training, num_steps: int) -> Any:
    """Return transformers' schedule of that name: warm-up from zero, then the named course to zero."""
    from transformers import get_scheduler

    name = "constant_with_warmup" if training.schedule == "constant" else training.schedule
    warmup = round(training.warmup_ratio * num_steps)
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=num_steps)
