"""LyCORIS: what the strategies that PEFT took over from there have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from pewb.strategies.peft_engine import PeftStrategy, refused_conv1d

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class Lycoris(PeftStrategy):
    """A strategy that adds a factored matrix to linear layers, by PEFT's `LycorisTuner`."""

    rank: int = Field(default=8, ge=1)
    """Of the low-rank factors."""
    alpha: float = Field(default=16, gt=0)
    """The update is multiplied by alpha / rank."""
    targets: list[str] = Field(default=["query", "value"], min_length=1)
    """Canonical site names."""

    starts_as_backbone: ClassVar[bool] = True
    quantizations: ClassVar[tuple[str, ...]] = ("none", "int8")
    quantization_refusal: ClassVar[str] = "PEFT takes a 4-bit layer's shape from its packed codes, which have another"

    def refuses(self, quantization: str, anatomy: Anatomy | None = None, device: str | None = None) -> str | None:
        """Refuse unquantised backbones whose projections are transformers' `Conv1D` (GPT-2)."""
        return super().refuses(quantization, anatomy, device) or refused_conv1d(quantization, anatomy)

    def describe(self) -> str:
        """Return rank and sites."""
        return f"r={self.rank} a={self.alpha:g} {'+'.join(self.targets)}"
