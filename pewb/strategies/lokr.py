"""LoKr: updates that are a Kronecker product of small matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pewb.strategies.lycoris import Lycoris

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class LoKr(Lycoris):
    """Train h = W x + (alpha / rank) (C kron (B A)) x, where kron is the Kronecker product.

    Edalati et al. 2022 (KronA); with B A of low rank, Yeh et al. 2024 (LyCORIS), section 3. C starts at zero,
    so the model starts as the backbone. Where the second factor is small, PEFT trains it whole, not as B A.
    """

    kind: Literal["lokr"] = "lokr"
    factor: int | None = Field(default=None, ge=2)
    """Size of C; left out: as near to the second factor's as the layer's sizes divide."""

    trains: ClassVar[str] = "Kronecker-factored updates of linear layers"
    equation: ClassVar[str] = "h = W x + (alpha / r) (C kron (B A)) x"
    paper: ClassVar[str] = "Edalati et al. 2022, arXiv:2212.10650; Yeh et al. 2024, arXiv:2309.14859"
    default_learning_rate: ClassVar[float] = 3e-3
    learning_rate_source: ClassVar[str] = (
        "PEFT's method_comparison/MetaMathQA, experiments/lokr/llama-3.2-3B-rank32-factor4-lr0.003: 3e-3"
    )

    def peft_config(self, anatomy: Anatomy) -> Any:
        """Return the `LoKrConfig`."""
        from peft import LoKrConfig

        return LoKrConfig(
            task_type=anatomy.peft_task_type,
            r=self.rank,
            alpha=self.alpha,
            decompose_factor=self.factor or -1,
            target_modules=anatomy.modules(self.targets),
            modules_to_save=list(anatomy.head) or None,
        )
