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
    """Train h + s W_up f(W_down h), at one of three places; W_up starts at zero, so the model starts as the backbone.

    `houlsby`: after each sub-layer's output projection, before the residual connection (Houlsby et al. 2019, section 2.1
    and figure 2). `pfeiffer`: after the feed-forward only (Pfeiffer et al. 2021), without their second norm.
    `parallel`: beside the feed-forward, reading its input x instead of its output h (He et al. 2022, table 1).
    Layer norms stay frozen (Houlsby et al. train them too; that is a separate strategy here).
    """

    kind: Literal["bottleneck_adapter"] = "bottleneck_adapter"
    placement: Literal["houlsby", "pfeiffer", "parallel"] = "houlsby"
    """After both sub-layers, after the feed-forward alone, or beside it."""
    bottleneck: int = Field(default=64, ge=1)
    """Width of the inner layer."""
    activation: Literal["relu", "gelu", "silu"] = "gelu"
    """The function f."""
    scale: float | None = Field(default=None, gt=0)
    """The factor s; left out: 4 for `parallel` (He et al. 2022, the authors' exps/run_xsum.sh), 1 for the others."""

    trains: ClassVar[str] = "two small networks in every layer"
    equation: ClassVar[str] = "h <- h + s W_up f(W_down h); parallel: h = FFN(x) + s W_up f(W_down x)"
    paper: ClassVar[str] = (
        "Houlsby et al. 2019, arXiv:1902.00751; pfeiffer: Pfeiffer et al. 2021, arXiv:2005.00247;"
        " parallel: He et al. 2022, arXiv:2110.04366"
    )
    default_learning_rate: ClassVar[float] = 3e-4
    learning_rate_source: ClassVar[str] = "Houlsby et al. 2019, on GLUE: the middle of 3e-5, 3e-4, 3e-3"
    starts_as_backbone: ClassVar[bool] = True

    def describe(self) -> str:
        """Return the bottleneck's width, and where it is if not where Houlsby et al. put it."""
        place = "" if self.placement == "houlsby" else f"{self.placement} "
        factor = "" if self.scale is None else f" s={self.scale:g}"
        return f"{place}width {self.bottleneck}{factor}"

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Freeze the backbone and hang in the adapters."""
        freeze_except(model, list(anatomy.head))
        self.insert(model, anatomy)
        return model

    def insert(self, model: Any, anatomy: Anatomy) -> None:
        """Hang the adapters into `model`, whatever else of it is trained."""
        if self.placement == "parallel":
            for entrance, exit_ in anatomy.feed_forwards():
                projection = model.get_submodule(exit_)
                self._hang_in(projection)
                _add_parallel(model.get_submodule(entrance), projection, self.scale or 4.0)
            return
        sites = ["attention_output", "down"] if self.placement == "houlsby" else ["down"]
        for name in anatomy.modules(sites):
            projection = model.get_submodule(name)
            self._hang_in(projection)
            _add_sequential(projection, self.scale or 1.0)

    def _hang_in(self, projection: Any) -> None:
        """Give `projection` an adapter of its output's width as a child, which nothing calls yet."""
        from torch import nn

        hidden = getattr(projection, "out_features", None) or projection.nf  # transformers' Conv1D calls it nf
        functions = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
        device = projection.weight.device
        adapter = nn.Sequential(
            nn.Linear(hidden, self.bottleneck, device=device),
            functions[self.activation](),
            nn.Linear(self.bottleneck, hidden, device=device),
        )
        nn.init.normal_(adapter[0].weight, std=0.02)
        nn.init.zeros_(adapter[0].bias)
        nn.init.zeros_(adapter[2].weight)
        nn.init.zeros_(adapter[2].bias)
        projection.register_module(CHILD, adapter)


def _adapted(projection: Any, hidden: Any, output: Any, scale: float) -> Any:
    """Return `output` with what the adapter of `projection` makes of `hidden`, both (batch, tokens, hidden)."""
    adapter = projection.get_submodule(CHILD)
    return output + scale * adapter(hidden.to(adapter[0].weight.dtype)).to(output.dtype)


def _add_sequential(projection: Any, scale: float) -> None:
    """Let the adapter of `projection` read the projection's own output."""
    projection.register_forward_hook(lambda module, _inputs, output: _adapted(module, output, output, scale))


def _add_parallel(entrance: Any, projection: Any, scale: float) -> None:
    """Let the adapter of `projection`, the last of a feed-forward, read what came into its first, `entrance`."""
    held: list[Any] = []

    def hold(_module: Any, inputs: tuple[Any, ...]) -> None:
        held[:] = inputs[:1]

    def add(module: Any, _inputs: Any, output: Any) -> Any:
        return _adapted(module, held.pop(), output, scale)

    entrance.register_forward_pre_hook(hold)
    projection.register_forward_hook(add)
