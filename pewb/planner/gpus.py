"""GPUs by name: how much memory a training has on each, and how fast it is at best."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field

from pewb.errors import InputError, nearest
from pewb.units import format_bytes

_HOPPER = (9, 0)
_AMPERE = (8, 0)


@dataclass(frozen=True)
class Gpu:
    """A GPU that a plan may be made for, whether or not this machine has one."""

    name: str
    description: str
    memory_bytes: int
    """What CUDA reports as its whole memory."""
    context_bytes: int
    """What the CUDA context takes of it, with the kernels' code."""
    workspace_bytes: int
    """What cuBLAS's workspaces take of it: PyTorch's allocator counts them, a simulation does not see them."""
    compute_capability: tuple[int, int]
    has_bf16: bool
    """Whether its hardware computes in bf16."""
    bandwidth_bytes_per_second: float | None = None
    fp32_flops: float | None = None
    """Peak operations per second; None: unknown."""
    fp16_flops: float | None = None
    """Peak of dense products that accumulate in fp32."""
    bf16_flops: float | None = None
    """Likewise; None where the hardware has no bf16."""
    source: str | None = None
    """Where the rates are published."""
    assumption: str | None = None
    """What was assumed of it that the user did not say."""

    @property
    def usable_bytes(self) -> int:
        """What is left for the tensors that a plan counts."""
        return self.memory_bytes - self.context_bytes - self.workspace_bytes


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Allowance(_Table):
    context_mib: int
    workspaces: int
    workspace_bytes: int
    workspace_bytes_from_hopper: int

    def context(self) -> int:
        return self.context_mib * 2**20

    def workspace(self, capability: tuple[int, int]) -> int:
        each = self.workspace_bytes_from_hopper if capability >= _HOPPER else self.workspace_bytes
        return self.workspaces * each


class _Row(_Table):
    description: str
    aliases: tuple[str, ...] = ()
    memory_mib: int
    compute_capability: str = Field(pattern=r"^\d+\.\d$")
    bandwidth_gb_per_second: float
    fp32_tflops: float
    fp16_tflops: float
    bf16_tflops: float | None = None
    bf16: bool
    source: str

    def to_gpu(self, name: str, allowance: _Allowance) -> Gpu:
        major, _, minor = self.compute_capability.partition(".")
        capability = (int(major), int(minor))
        return Gpu(
            name=name,
            description=self.description,
            memory_bytes=self.memory_mib * 2**20,
            context_bytes=allowance.context(),
            workspace_bytes=allowance.workspace(capability),
            compute_capability=capability,
            has_bf16=self.bf16,
            bandwidth_bytes_per_second=self.bandwidth_gb_per_second * 1e9,
            fp32_flops=self.fp32_tflops * 1e12,
            fp16_flops=self.fp16_tflops * 1e12,
            bf16_flops=None if self.bf16_tflops is None else self.bf16_tflops * 1e12,
            source=self.source,
        )


class _Document(_Table):
    allowance: _Allowance
    gpus: dict[str, _Row]


@cache
def _document() -> _Document:
    text = files("pewb.planner").joinpath("gpus.toml").read_text(encoding="utf-8")
    return _Document.model_validate(tomllib.loads(text))


def gpus() -> dict[str, Gpu]:
    """Return the GPUs that have a name."""
    document = _document()
    return {name: row.to_gpu(name, document.allowance) for name, row in document.gpus.items()}


def gpu(name: str) -> Gpu:
    """Return the GPU called `name`, such as "rtx-4090", however its words are joined and written.

    Raises:
        InputError: no GPU is called so.
    """
    known = gpus()
    names = {alias: title for title, row in _document().gpus.items() for alias in (title, *row.aliases)}
    asked = "-".join(name.lower().replace("_", " ").replace("-", " ").split())
    if asked in names:
        return known[names[asked]]
    sizes = [title for title in known if title.startswith(f"{asked}-")]
    hint = f"; there are {' and '.join(sizes)}" if sizes else nearest(asked, list(names))
    raise InputError(
        f"no GPU '{name}'{hint}; known are {', '.join(known)}; of any other, give the memory: --gpu-memory 8GiB"
    )


def custom_gpu(memory_bytes: int, capability: tuple[int, int] = _AMPERE) -> Gpu:
    """Return a GPU of which only the memory is known, as CUDA reports it; compute capability 8.0 is assumed if not given.

    Raises:
        InputError: it has no memory left beside the CUDA context and cuBLAS's workspaces.
    """
    allowance = _document().allowance
    taken = allowance.context() + allowance.workspace(capability)
    if memory_bytes <= taken:
        raise InputError(
            f"a GPU with {format_bytes(memory_bytes)} of memory has none left beside the CUDA context and cuBLAS's"
            f" workspaces ({format_bytes(taken)}); give more, with its unit, such as 8GiB"
        )
    title = f"a GPU with {format_bytes(memory_bytes)}"
    return Gpu(
        name=title,
        description=title,
        memory_bytes=memory_bytes,
        context_bytes=allowance.context(),
        workspace_bytes=allowance.workspace(capability),
        compute_capability=capability,
        has_bf16=capability >= _AMPERE,
        assumption="compute capability 8.0 (Ampere), which computes in bf16; name a GPU to be exact",
    )
