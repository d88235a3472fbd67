"""The device of a run: which it is, what it is good at, and how it is kept to a memory limit."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pewb.errors import InputError
from pewb.recipe import DeviceSection, Precision


@dataclass(frozen=True)
class Computing:
    """How a run computes: where, in which type, and whether under autocast."""

    device: torch.device
    precision: Precision
    """Resolved: never `auto`."""
    compute_type: torch.dtype
    """The type of matrix products; frozen weights are stored in it."""
    acts_as: str | None = None
    """The kind of device that a virtual one stands for."""

    @property
    def kind(self) -> str:
        """The kind of device that computes, such as cpu or cuda."""
        return self.acts_as or self.device.type

    @property
    def autocast(self) -> str:
        """Accelerate's name for the mixed precision: no, bf16 or fp16."""
        return self.precision if self.precision in ("bf16", "fp16") else "no"


def choose_device(section: DeviceSection) -> torch.device:
    """Return the device that `section` asks for, an accelerator first.

    Raises:
        InputError: there is no such device.
    """
    if section.kind == "cpu":
        return torch.device("cpu")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if section.kind == "auto":
        return accelerator or torch.device("cpu")
    if accelerator is None or accelerator.type != section.kind:
        has = f"it has {accelerator.type}" if accelerator else "it has a CPU only"
        raise InputError(f"device.kind: '{section.kind}' is not on this machine, {has}; use kind = \"auto\"")
    return accelerator


def choose_precision(asked: Precision, device: torch.device) -> Computing:
    """Resolve `auto` for the device: bf16 where it computes bf16 natively, else fp16 on a CUDA GPU, else fp32.

    Raises:
        InputError: the device can't do what was asked.
    """
    native = {"cpu": _cpu_has_bf16, "cuda": _cuda_has_bf16, "xpu": lambda: True}.get(device.type, lambda: False)
    return computing_on(device, asked, native())


def computing_on(device: torch.device, asked: Precision, has_bf16: bool, acts_as: str | None = None) -> Computing:
    """Return how to compute on `device`, or on a virtual one that `acts_as` another; `has_bf16`: natively.

    Raises:
        InputError: the device can't do what was asked.
    """
    kind = acts_as or device.type
    if asked == "fp16" and kind == "cpu":
        raise InputError('training.precision: fp16 needs a GPU; use "auto", "bf16" or "fp32" on a CPU')
    precision = asked
    if asked == "auto":
        precision = "bf16" if has_bf16 else "fp16" if kind == "cuda" else "fp32"
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "bf16-true": torch.bfloat16, "fp16": torch.float16}
    return Computing(device, precision, types[precision], acts_as)


def _cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("amx_tile"))


def _cuda_has_bf16() -> bool:
    return bool(torch.cuda.get_device_capability() >= (8, 0))


def device_name(device: torch.device) -> str:
    """Return the name of the device's model, such as "AMD EPYC 9B14" or "NVIDIA L4"."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return _cpu_name() if device.type == "cpu" else device.type


def device_build(device: torch.device) -> str:
    """Return what tells devices of one name apart: of a CPU its family and model, which a virtual machine's name may leave out."""
    if device.type != "cpu":
        return device_name(device)
    return f"{_cpu_name()}, family {_cpu_fact('cpu family')}, model {_cpu_fact('model')}"


def _cpu_name() -> str:
    return _cpu_fact("model name") or platform.processor() or platform.machine()


def _cpu_fact(name: str) -> str | None:
    """Return what Linux says of the first CPU under `name`; None where it says nothing."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            facts = (line.partition(":") for line in lines)
            return next(value.strip() for key, _, value in facts if key.strip() == name)
    except (OSError, StopIteration):
        return None


def limit_memory(device: torch.device, limit_bytes: int | None) -> None:
    """Keep a CUDA GPU's allocator below `limit_bytes`; a CPU is kept to it by `measurement.memory`."""
    if limit_bytes is None or device.type != "cuda":
        return
    index = torch.cuda.current_device()
    total = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), index)


def environment(device: torch.device) -> dict[str, Any]:
    """Return what a record keeps of the software and the machine."""
    from importlib.metadata import version

    packages = ("pewb", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "evaluate")
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: version(name) for name in packages},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the host's on `device`; a GPU's copy is not waited for."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
