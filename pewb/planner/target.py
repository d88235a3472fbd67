"""What a plan is made for: a GPU by name or by its memory, or this machine's CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import psutil

from pewb.errors import InputError
from pewb.planner.gpus import Gpu, custom_gpu, gpu
from pewb.recipe import DeviceSection
from pewb.units import parse_bytes

if TYPE_CHECKING:
    import torch

DeviceKind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Target:
    """A device as the simulation sees it."""

    kind: DeviceKind
    name: str
    has_bf16: bool
    capability: tuple[int, int] = (0, 0)
    memory_bytes: int | None = None
    """What a training may hold, as a simulation counts it; None: no limit is known."""
    workspace_bytes: int = 0
    """What a run's allocator counts besides: cuBLAS's workspaces."""
    gpu: Gpu | None = None

    def flops(self, precision: str) -> float | None:
        """Return the quoted peak rate of products in `precision`, in operations a second; None: unknown."""
        if self.gpu is None:
            return None
        return {"fp32": self.gpu.fp32_flops, "fp16": self.gpu.fp16_flops}.get(precision, self.gpu.bf16_flops)


def gpu_target(gpu: Gpu) -> Target:
    """Return the target that a known GPU, or one of a given memory, is."""
    return Target(
        "cuda",
        gpu.name,
        gpu.has_bf16,
        gpu.compute_capability,
        gpu.usable_bytes,
        workspace_bytes=gpu.workspace_bytes,
        gpu=gpu,
    )


def choose_target(section: DeviceSection, name: str | None = None, memory: str | None = None) -> Target:
    """Return the target that a user asks for: a GPU by `name`, one with so much `memory`, or what this machine runs on.

    A row may have less of it: see `limited`.

    Raises:
        InputError: no such GPU is known, `memory` is no size, or both are given.
    """
    if name is not None and memory is not None:
        raise InputError("--gpu and --gpu-memory: give one of the two")
    if name is not None:
        return gpu_target(gpu(name))
    if memory is not None:
        return gpu_target(custom_gpu(parse_bytes(memory)))
    return _here(section)


def limited(target: Target, section: DeviceSection) -> Target:
    """Return `target` with no more memory than the recipe gives it."""
    limit = section.memory_bytes
    if limit is None or (target.memory_bytes or limit) < limit:
        return target
    return replace(target, memory_bytes=limit)


def _here(section: DeviceSection) -> Target:
    """Return the device that a run would take on this machine."""
    from pewb.device import choose_device

    return target_of(choose_device(section))


def target_of(device: torch.device) -> Target:
    """Return the target that a device of this machine is; what is no CUDA GPU is taken for a CPU."""
    import torch

    from pewb.device import choose_precision, device_name

    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        capability = torch.cuda.get_device_capability(device)
        here = custom_gpu(properties.total_memory, capability)
        return replace(gpu_target(here), name=properties.name, gpu=None)
    has_bf16 = choose_precision("auto", device).precision == "bf16"
    return Target("cpu", device_name(device), has_bf16, memory_bytes=psutil.virtual_memory().total)
