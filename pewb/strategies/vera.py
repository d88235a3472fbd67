"""VeRA: one frozen random pair of matrices for all layers, and trained vectors between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pewb.strategies.peft_engine import PeftStrategy

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class Vera(PeftStrategy):
    """Train vectors b and d in h = W x + b * B (d * A x), with A and B random, frozen and shared by all layers.

    Kopiczko et al. 2024, equation 2. b starts at zero, so the model starts as the backbone. A and B are saved with the
    vectors, because a seed alone does not give them back on every machine.
    """

    kind: Literal["vera"] = "vera"
    rank: int = Field(default=256, ge=1)
    """Inner size of the shared matrices (256: PEFT's default; that replication takes 1024)."""
    d_initial: float = Field(default=0.1, gt=0)
    """Where d starts (0.1: PEFT's default)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of what goes into the update."""
    targets: list[str] = Field(default=["query", "value"], min_length=1)
    """Canonical site names."""

    trains: ClassVar[str] = "vectors inside shared random updates of linear layers"
    equation: ClassVar[str] = "h = W x + b * B (d * A x)"
    paper: ClassVar[str] = "Kopiczko et al. 2024, arXiv:2310.11454"
    default_learning_rate: ClassVar[float] = 4e-3
    learning_rate_source: ClassVar[str] = (
        "github.com/TonAnh/VeRA-plus, scripts/vera_replicate/sst2.sh, a replication with RoBERTa-base: 4e-3"
    )
    starts_as_backbone: ClassVar[bool] = True

    def describe(self) -> str:
        """Return rank and sites."""
        return f"r={self.rank} {'+'.join(self.targets)}"

    def peft_config(self, anatomy: Anatomy) -> Any:
        """Return the `VeraConfig`."""
        from peft import VeraConfig

        return VeraConfig(
            task_type=anatomy.peft_task_type,
            r=self.rank,
            d_initial=self.d_initial,
            vera_dropout=self.dropout,
            target_modules=anatomy.modules(self.targets),
            modules_to_save=list(anatomy.head) or None,
        )
