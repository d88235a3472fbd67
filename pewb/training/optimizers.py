"""Optimizers and learning rate schedules."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pewb.recipe import Training


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Return the optimizer of the recipe over the trainable parameters; biases and norms (vectors) do not decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [one for one in trained if one.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [one for one in trained if one.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    assert training.learning_rate is not None
    rate = training.learning_rate
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate)
    import bitsandbytes

    kind = {"adamw_8bit": bitsandbytes.optim.AdamW8bit, "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit}
    optimizer: torch.optim.Optimizer = kind[training.optimizer](groups, lr=rate)
    return optimizer


def make_schedule(optimizer: torch.optim.Optimizer, training: Training, num_steps: int) -> Any:
    """Return transformers' schedule of that name: warm-up from zero, then the named course to zero."""
    from transformers import get_scheduler

    name = "constant_with_warmup" if training.schedule == "constant" else training.schedule
    warmup = round(training.warmup_ratio * num_steps)
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=num_steps)
