"""Trained weights on disk: safetensors, only what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pewb.errors import InputError

if TYPE_CHECKING:
    from torch import nn

TRAINED_FILE = "trained_weights.safetensors"


def save_trained(model: nn.Module, folder: Path) -> None:
    """Write every trainable parameter of `model` into `folder`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    trained = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.named_parameters() if tensor.requires_grad
    }
    save_file(trained, folder / TRAINED_FILE)


def load_trained(model: nn.Module, folder: Path) -> None:
    """Read what `save_trained` wrote into a model to which the same strategy was applied.

    Raises:
        InputError: the file does not fit the model.
    """
    import torch
    from safetensors.torch import load_file

    stored = load_file(folder / TRAINED_FILE)
    expected = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    if stored.keys() != expected.keys():
        odd = sorted(stored.keys() ^ expected.keys())[:3]
        raise InputError(
            f"{folder / TRAINED_FILE} was saved from another model or strategy (differs in {', '.join(odd)})"
        )
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(stored[name])
