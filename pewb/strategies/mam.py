"""Mix and match: a short prefix before every attention, and an adapter beside every feed-forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pewb.strategies.bottleneck_adapter import BottleneckAdapter
from pewb.strategies.prefix_tuning import PrefixTuning
from pewb.strategies.strategy import Strategy

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class Mam(Strategy):
    """Train a `prefix_tuning` of few tokens and a scaled parallel `bottleneck_adapter` (He et al. 2022).

    The adapters start at zero, but the random prefix is read from the first step on.
    """

    kind: Literal["mam"] = "mam"
    num_virtual_tokens: int = Field(default=30, ge=1)
    """Length of the prefix (30: the authors' exps/run_xsum.sh)."""
    bottleneck: int = Field(default=64, ge=1)
    """Width of the adapters."""
    scale: float = Field(default=4.0, gt=0)
    """The adapters' factor s."""

    trains: ClassVar[str] = "a short prefix, and a small network beside every feed-forward"
    equation: ClassVar[str] = "attn(Q, [P_k; K], [P_v; V]); h = FFN(x) + s W_up f(W_down x)"
    paper: ClassVar[str] = "He et al. 2022, arXiv:2110.04366"
    default_learning_rate: ClassVar[float] = 1e-3
    learning_rate_source: ClassVar[str] = (
        "measured: minilm-l6 on 4,000 movie-snippets, 2 epochs, validation: .763 at 1e-4, .785 at 3e-4, .813 at 1e-3,"
        " nothing learned at 3e-3"
    )
    starts_as_backbone: ClassVar[bool] = False
    supports_gradient_checkpointing: ClassVar[bool] = PrefixTuning.supports_gradient_checkpointing

    @property
    def prefix(self) -> PrefixTuning:
        """The part at the attention."""
        return PrefixTuning(num_virtual_tokens=self.num_virtual_tokens)

    @property
    def adapter(self) -> BottleneckAdapter:
        """The part at the feed-forward."""
        return BottleneckAdapter(placement="parallel", bottleneck=self.bottleneck, scale=self.scale, activation="relu")

    def misfit(self, anatomy: Anatomy) -> str | None:
        """Refuse encoder-decoders, and architectures that take no past keys and values, as `prefix_tuning` does."""
        return self.prefix.misfit(anatomy)

    def describe(self) -> str:
        """Return the prefix's length and the adapters' width."""
        return f"{self.num_virtual_tokens} tokens, width {self.bottleneck}"

    def virtual_tokens(self) -> int:
        """Return the prefix's length."""
        return self.prefix.virtual_tokens()

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Let PEFT freeze `model` and put the prefix before it, then hang the adapters in."""
        wrapped = self.prefix.apply(model, anatomy)
        self.adapter.insert(model, anatomy)
        return wrapped
