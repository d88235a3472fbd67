"""Layer norm tuning: the normalisation layers of the backbone, and nothing else of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pewb.strategies.strategy import Strategy, freeze_except

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class LayerNorm(Strategy):
    """Train gain and bias of every layer norm, or the gain of every RMS norm (LN-tuning, Qi et al. 2022).

    Ours, because PEFT's `LNTuningConfig` computes the same but keeps a frozen copy beside each norm.
    """

    kind: Literal["layer_norm"] = "layer_norm"

    trains: ClassVar[str] = "the layer norms"
    equation: ClassVar[str] = "h = g (x - mean(x)) / std(x) + b, only g and b trained; RMS norms: h = g x / rms(x)"
    paper: ClassVar[str] = "Qi et al. 2022, arXiv:2211.08682; for decoders Zhao et al. 2024, arXiv:2312.11420"
    default_learning_rate: ClassVar[float] = 3e-3
    learning_rate_source: ClassVar[str] = (
        "measured: minilm-l6 on 4,000 movie-snippets, 2 epochs, validation: .778 at 1e-3, .804 at 3e-3, .816 at 1e-2,"
        " nothing learned at 3e-2"
    )
    starts_as_backbone: ClassVar[bool] = True

    def misfit(self, anatomy: Anatomy) -> str | None:
        """Refuse architectures in which no norm has weights."""
        return None if anatomy.norms else "none of its normalisation layers has weights"

    def trained_modules(self, anatomy: Anatomy) -> list[str]:
        """Return the norms."""
        return list(anatomy.norms)

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Freeze everything but the norms and the head."""
        freeze_except(model, [*anatomy.norms, *anatomy.head])
        return model
