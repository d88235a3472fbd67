"""What this installation can do: versions, device, quantised layers, cache, hub and package index; and what to mend."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any, Literal

from pewb.assets import MissingError, cache_folder, hub_fault, package_index_fault
from pewb.quiet import quieten_libraries
from pewb.reporting import Reporter
from pewb.units import format_bytes

if TYPE_CHECKING:
    import torch

State = Literal["ok", "warning", "fault"]

_ROOM = 5 * 2**30
"""Bytes that a small backbone with its tuned weights needs on the disk, generously."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    """A warning is something that can't be done here; a fault keeps pewb from working."""
    text: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return asdict(self)


def examine(reporter: Reporter) -> list[Finding]:
    """Look at everything that a run needs; nothing is changed, and no network is waited for longer than some seconds."""
    quieten_libraries()
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (_packages, _device, _quantization, _cache, _hub, _index)
    found: list[Finding] = []
    for number, look in enumerate(looks):
        reporter.progress("looking", number, len(looks), look.__name__.strip("_"))
        try:
            found += look()
        except Exception as error:  # whatever it is, it is what the user asks for
            told = (str(error).splitlines() or [""])[0]
            found.append(Finding(look.__name__.strip("_"), "fault", f"{type(error).__name__}: {told}"))
    reporter.progress("looking", len(looks), len(looks))
    return found


def _packages() -> Iterator[Finding]:
    """Hold what is installed against what pewb asks for."""
    from packaging.requirements import Requirement

    wrong, told = [], [f"pewb {version('pewb')}"]
    for text in requires("pewb") or ():
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            has = version(wanted.name)
        except PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing, {wanted.specifier} is needed")
            continue
        if not wanted.specifier.contains(has, prereleases=True):
            wrong.append(f"{wanted.name} is {has}, {wanted.specifier} is needed")
        elif wanted.name in ("torch", "transformers", "peft", "accelerate", "bitsandbytes"):
            told.append(f"{wanted.name} {has}")
    if wrong:
        yield Finding("packages", "fault", "; ".join(wrong), "pip install --upgrade pewb")
    else:
        yield Finding("packages", "ok", ", ".join(told))


def _device() -> Iterator[Finding]:
    """Say what a run would take here, and whether a GPU lies idle."""
    import psutil
    import torch

    from pewb.device import choose_device, choose_precision, device_name
    from pewb.recipe import DeviceSection

    device = choose_device(DeviceSection())
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        memory = f"{format_bytes(free)} free of {format_bytes(total)}"
    else:
        found = psutil.virtual_memory()
        memory = f"{format_bytes(found.available)} free of {format_bytes(found.total)}"
        memory += f", {torch.get_num_threads()} threads"
    precision = choose_precision("auto", device).precision
    yield Finding("device", "ok", f'{device.type}: {device_name(device)}, {memory}; precision "auto" is {precision}')
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        build = (
            "was built without CUDA"
            if torch.version.cuda is None
            else f"finds none (built for CUDA {torch.version.cuda})"
        )
        yield Finding(
            "gpu",
            "warning",
            f"there is a driver for NVIDIA GPUs, but torch {torch.__version__} {build}",
            "see nvidia-smi and CUDA_VISIBLE_DEVICES; for another build of torch see https://pytorch.org/get-started",
        )


def _quantization() -> Iterator[Finding]:
    """Train a layer's input through each kind of storage, as a quantised backbone does."""
    from pewb.device import choose_device
    from pewb.recipe import DeviceSection

    device = choose_device(DeviceSection())
    broken = {}
    for kind in ("int8", "nf4", "fp4"):
        try:
            _train_through(kind, device)
        except Exception as error:  # each library and device fails in its own way
            broken[kind] = (str(error).splitlines() or [type(error).__name__])[0]
    working = [kind for kind in ("int8", "nf4", "fp4") if kind not in broken]
    if working:
        yield Finding("quantization", "ok", f"{', '.join(working)} work on {device.type}")
    for kind, reason in broken.items():
        yield Finding("quantization", "warning", f"{kind} does not work: {reason}", "python -m bitsandbytes says more")


def _train_through(kind: str, device: torch.device) -> None:
    """Take a gradient through a quantised layer.

    Raises:
        Exception: the layer does not work on the device.
    """
    import torch
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    compute_type = torch.float16 if device.type == "cuda" else torch.float32
    layer: torch.nn.Module
    if kind == "int8":
        layer = Linear8bitLt(64, 64, has_fp16_weights=False)
    else:
        layer = Linear4bit(64, 64, quant_type=kind, compute_dtype=compute_type)
    layer = layer.to(device)
    inputs = torch.ones(2, 64, device=device, dtype=compute_type, requires_grad=True)
    layer(inputs).sum().backward()
    if inputs.grad is None or not bool(inputs.grad.isfinite().all()):
        raise ArithmeticError("its gradients are not numbers")


def _cache() -> Iterator[Finding]:
    """See that the cache can be written, and that there is room."""
    folder = cache_folder()
    probe = folder / f".doctor-{os.getpid()}"
    remedy = "set PEWB_CACHE to a folder that can be written"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"pewb")
        probe.unlink()
    except OSError as error:
        yield Finding("cache", "fault", f"{folder} can't be written: {error.strerror}", remedy)
        return
    free = shutil.disk_usage(folder).free
    text = f"{folder}, {format_bytes(free)} free"
    yield (
        Finding("cache", "ok", text)
        if free >= _ROOM
        else Finding("cache", "warning", text, remedy.replace("that can be written", "with more room"))
    )


def _hub() -> Iterator[Finding]:
    yield _source("model hub", hub_fault())


def _index() -> Iterator[Finding]:
    yield _source("package index", package_index_fault())


def _source(name: str, fault: MissingError | None) -> Finding:
    """Return what is to be said of a source; the catalogue's entries have others, and a recipe may name folders."""
    if fault is None:
        return Finding(name, "ok", "it answers")
    return Finding(name, "warning", fault.reason, fault.way_out)
