"""Digests of what a computation depends on: weights, examples, configuration, packages and device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch

from pewb.record import NUMERICS_VERSION

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def surroundings(device: str) -> list[Any]:
    """Return what the last digits depend on besides the model and the examples; `device` is its kind and name."""
    threads = torch.get_num_threads() if device.startswith("cpu") else None
    return [NUMERICS_VERSION, [version(name) for name in _PACKAGES], device, threads]


def of_weights(tensors: Mapping[str, Any]) -> bytes:
    """Return the digest of named tensors, whatever their order; what is no tensor is left out."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.digest()


def of_computation(facts: Any, features: Any, columns: Sequence[str], weights: bytes) -> str:
    """Return the digest of a model with these `weights` computing the `columns` of the examples `features`.

    `facts` are JSON; what JSON does not know counts as its text.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([facts, list(columns)], default=str, sort_keys=True).encode())
    read = features.with_format("arrow")[:]
    for name in columns:
        digest.update(json.dumps(read[name].to_pylist()).encode())
    digest.update(weights)
    return digest.hexdigest()
