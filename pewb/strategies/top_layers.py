"""Top layers: the last few layers of the backbone and the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pewb.errors import RefusedError
from pewb.strategies.strategy import Strategy, freeze_except

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class TopLayers(Strategy):
    """Train the layers nearest the head as they are ("variable fine-tuning", Houlsby et al. 2019).

    On a quantised backbone the trained layers stay unquantised.
    """

    kind: Literal["top_layers"] = "top_layers"
    num_layers: int = Field(default=2, ge=1)
    """How many layers below the head are trained."""

    trains: ClassVar[str] = "the last layers"
    equation: ClassVar[str] = "y = head(f_top(f(x))), f frozen, f_top the last num_layers layers"
    paper: ClassVar[str] = "Houlsby et al. 2019, arXiv:1902.00751"
    default_learning_rate: ClassVar[float] = 3e-4
    learning_rate_source: ClassVar[str] = (
        "minilm-l6, two layers, all movie-snippets, 3 epochs, validation: .809 at 2.3e-5, .827 at 1.1e-4, .843 at 5e-4, .806 at"
        " 2.3e-3 (full tuning's 5e-5 is low where few layers are trained)"
    )
    starts_as_backbone: ClassVar[bool] = True

    def describe(self) -> str:
        """Return the number of layers."""
        return f"top {self.num_layers}"

    def trained_modules(self, anatomy: Anatomy) -> list[str]:
        """Return the last layers' names."""
        available = anatomy.top_stack.num_layers
        if self.num_layers > available:
            raise RefusedError(
                f"strategy.num_layers: {self.num_layers} layers asked for, the backbone has {available}; allowed: 1 to {available}"
            )
        return anatomy.layer_modules(self.num_layers)

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Freeze everything below the last layers."""
        freeze_except(model, [*self.trained_modules(anatomy), *anatomy.head])
        return model
