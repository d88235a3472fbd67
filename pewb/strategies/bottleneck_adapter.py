"""Bottleneck adapters: small two-layer networks inside each transformer layer (ours; PEFT has none)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pewb.strategies.strategy import Strategy, freeze_except

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy

CHILD = "bottleneck_adapter"
"""The name under which a projection holds its adapter."""


class BottleneckAdapter(Strategy):
    """Train h + W_up f(W_down h) after each sub-layer's output projection, before the residual connection.

    Houlsby et al. 2019, section 2.1 and figure 2. W_up starts at zero, so the model starts as the backbone. Layer norms
    stay frozen (the paper trains them too; that is a separate strategy here).
    """

    kind: Literal["bottleneck_adapter"] = "bottleneck_adapter"
    bottleneck: int = Field(default=64, ge=1)
    """Width of the inner layer."""
    activation: Literal["relu", "gelu", "silu"] = "gelu"

    trains: ClassVar[str] = "two small networks in every layer"
    paper: ClassVar[str] = "Houlsby et al. 2019, arXiv:1902.00751"
    default_learning_rate: ClassVar[float] = 3e-4
    learning_rate_source: ClassVar[str] = "Houlsby et al. 2019, on GLUE: the middle of 3e-5, 3e-4, 3e-3"
    starts_as_backbone: ClassVar[bool] = True

    def describe(self) -> str:
        """Return the bottleneck's width."""
        return f"width {self.bottleneck}"

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Freeze the backbone and hang an adapter on each output projection of attention and feed-forward."""
        names = anatomy.modules(["attention_output", "down"])
        freeze_except(model, list(anatomy.head))
        for name in names:
            _insert(model.get_submodule(name), self.bottleneck, self.activation)
        return model


def _insert(projection: Any, width: int, activation: str) -> None:
    """Add an adapter of inner `width` to the output of `projection`, (batch, tokens, hidden) to the same shape."""
    import torch
    from torch import nn

    hidden = getattr(projection, "out_features", None) or projection.nf  # transformers' Conv1D calls it nf
    functions = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
    device = projection.weight.device
    adapter = nn.Sequential(
        nn.Linear(hidden, width, device=device), functions[activation](), nn.Linear(width, hidden, device=device)
    )
    nn.init.normal_(adapter[0].weight, std=0.02)
    nn.init.zeros_(adapter[0].bias)
    nn.init.zeros_(adapter[2].weight)
    nn.init.zeros_(adapter[2].bias)
    projection.register_module(CHILD, adapter)

    def add_adapter(module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        inner = module.get_submodule(CHILD)
        return output + inner(output.to(inner[0].weight.dtype)).to(output.dtype)

    projection.register_forward_hook(add_adapter)
