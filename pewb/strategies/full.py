"""Full fine-tuning: every weight of the backbone and the head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pewb.strategies.strategy import Strategy

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class Full(Strategy):
    """Train everything (Devlin et al. 2019, section 4); the yardstick for every other strategy."""

    kind: Literal["full"] = "full"

    trains: ClassVar[str] = "every weight"
    equation: ClassVar[str] = "h = (W + dW) x, every dW trained"
    paper: ClassVar[str] = "Devlin et al. 2019, arXiv:1810.04805"
    default_learning_rate: ClassVar[float] = 5e-5
    learning_rate_source: ClassVar[str] = "Devlin et al. 2019, appendix A.3: the largest of 5e-5, 3e-5, 2e-5"
    starts_as_backbone: ClassVar[bool] = True
    quantizations: ClassVar[tuple[str, ...]] = ("none",)
    quantization_refusal: ClassVar[str] = "quantised weights have no gradients, so they can't all be trained"

    def trained_modules(self, anatomy: Anatomy) -> list[str]:
        """Return the whole backbone: layers, embeddings, norms."""
        return list(anatomy.backbone)

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Make every parameter trainable."""
        model.requires_grad_(True)
        return model

    def save(self, model: Any, folder: Path) -> None:
        """Write the whole model as transformers does."""
        model.save_pretrained(folder)

    def load(self, model: Any, anatomy: Anatomy, folder: Path) -> Any:
        """Return the saved model."""
        return type(model).from_pretrained(folder, use_safetensors=True)
