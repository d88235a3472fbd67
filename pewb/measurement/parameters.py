"""Counting parameters: every stored tensor once, quantised ones as what they stand for."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from pewb.anatomy import Anatomy
from pewb.quantization import num_weights
from pewb.record import Parameters


def _stored(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield each parameter once, without the frozen originals of which PEFT trains a copy (`modules_to_save`)."""
    for name, parameter in model.named_parameters():
        if ".original_module." not in name:
            yield name, parameter


def head_parameters(model: nn.Module, anatomy: Anatomy) -> list[nn.Parameter]:
    """Return the head's parameters, in a plain model or inside PEFT's wrapping."""
    found = []
    for name, parameter in _stored(model):
        plain = (
            name.removeprefix("base_model.model.").removeprefix("base_model.").replace(".modules_to_save.default", "")
        )
        if plain.startswith(tuple(module + "." for module in anatomy.head)):
            found.append(parameter)
    return found


def count_parameters(model: nn.Module, anatomy: Anatomy) -> Parameters:
    """Return trainable (head included), head and total parameters of `model`."""
    stored = [parameter for _, parameter in _stored(model)]
    return Parameters(
        trainable=sum(num_weights(parameter) for parameter in stored if parameter.requires_grad),
        head=sum(num_weights(parameter) for parameter in head_parameters(model, anatomy)),
        total=sum(num_weights(parameter) for parameter in stored),
    )
