"""OFT: rotations of the inputs of frozen linear layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pewb.strategies.peft_engine import PeftStrategy, refused_conv1d

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class Oft(PeftStrategy):
    """Train a block-diagonal orthogonal R in h = W (R x), by the Cayley transform of a skew-symmetric Q.

    Qiu et al. 2023, section 3; rotating the input, with the transform's Neumann series cut after five terms, is
    OFTv2 (Qiu et al. 2025, section 4). Q starts at zero, so the model starts as the backbone.
    """

    kind: Literal["oft"] = "oft"
    block_size: int = Field(default=32, ge=2)
    """Size of each rotation; PEFT takes the nearest that divides the layer's input."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the rotations left out in a training step."""
    targets: list[str] = Field(default=["query", "value"], min_length=1)
    """Canonical site names."""

    trains: ClassVar[str] = "rotations of the inputs of linear layers"
    equation: ClassVar[str] = "h = W R x, R = blockdiag((I + Q)(I - Q)^-1), Q = -Q^T"
    paper: ClassVar[str] = "Qiu et al. 2023, arXiv:2306.07280; OFTv2: Qiu et al. 2025, arXiv:2506.19847"
    default_learning_rate: ClassVar[float] = 3e-3
    learning_rate_source: ClassVar[str] = (
        "measured: minilm-l6 on 4,000 movie-snippets, 2 epochs, validation: .823 at 9.5e-4, .836 at 3e-3, .767 at 9.5e-3"
    )
    starts_as_backbone: ClassVar[bool] = True

    def refuses(self, quantization: str, anatomy: Anatomy | None = None, device: str | None = None) -> str | None:
        """Refuse unquantised backbones whose projections are transformers' `Conv1D` (GPT-2)."""
        return super().refuses(quantization, anatomy, device) or refused_conv1d(quantization, anatomy)

    def describe(self) -> str:
        """Return block size and sites."""
        return f"blocks of {self.block_size} {'+'.join(self.targets)}"

    def peft_config(self, anatomy: Anatomy) -> Any:
        """Return the `OFTConfig`."""
        from peft import OFTConfig

        return OFTConfig(
            task_type=anatomy.peft_task_type,
            oft_block_size=self.block_size,
            module_dropout=self.dropout,
            target_modules=anatomy.modules(self.targets),
            modules_to_save=list(anatomy.head) or None,
        )
