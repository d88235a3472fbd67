"""LoRA: low-rank updates beside frozen linear layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pewb.strategies.peft_engine import PeftStrategy

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class Lora(PeftStrategy):
    """Train B·A in h = W x + (alpha / rank) B A x (Hu et al. 2022, equation 3); B starts at zero."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: list[str] = Field(default=["query", "value"], min_length=1)
    """Canonical site names."""

    trains: ClassVar[str] = "low-rank updates of linear layers"
    paper: ClassVar[str] = "Hu et al. 2022, arXiv:2106.09685"
    default_learning_rate: ClassVar[float] = 5e-4
    learning_rate_source: ClassVar[str] = "Hu et al. 2022, table 9: RoBERTa-base on SST-2"
    starts_as_backbone: ClassVar[bool] = True

    def describe(self) -> str:
        """Return rank and sites."""
        return f"r={self.rank} a={self.alpha:g} {'+'.join(self.targets)}"

    def peft_config(self, anatomy: Anatomy) -> Any:
        """Return the `LoraConfig`."""
        from peft import LoraConfig

        return LoraConfig(
            task_type="SEQ_CLS",
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=anatomy.modules(self.targets),
            modules_to_save=list(anatomy.head),
        )
