"""Head only: a linear probe on the frozen backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pewb.strategies.strategy import Strategy, freeze_except

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class HeadOnly(Strategy):
    """Train the task head alone; the backbone is a fixed feature extractor (Alain & Bengio 2016)."""

    kind: Literal["head_only"] = "head_only"

    trains: ClassVar[str] = "the head"
    equation: ClassVar[str] = "y = head(f(x)), f frozen"
    paper: ClassVar[str] = "Alain & Bengio 2016, arXiv:1610.01644"
    default_learning_rate: ClassVar[float] = 1e-3
    learning_rate_source: ClassVar[str] = (
        "Adam's own default, Kingma & Ba 2015: nothing pre-trained but a pooler can be harmed"
    )
    starts_as_backbone: ClassVar[bool] = True

    def misfit(self, anatomy: Anatomy) -> str | None:
        """Refuse language models, which have no new head: nothing would be trained."""
        return None if anatomy.head else "a language model has no new head, so nothing would be trained"

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Freeze everything but the head."""
        freeze_except(model, list(anatomy.head))
        return model
