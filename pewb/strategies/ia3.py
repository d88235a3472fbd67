"""(IA)3: learned factors for keys, values and the inside of the feed-forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pewb.strategies.peft_engine import PeftStrategy

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class Ia3(PeftStrategy):
    """Train vectors l_k, l_v, l_ff that scale keys, values and the feed-forward's inner activations.

    Liu et al. 2022, section 3.3. All factors start at one, so the model starts as the backbone. Where a block computes
    query, key and value in one projection, all of its output is scaled.
    """

    kind: Literal["ia3"] = "ia3"

    trains: ClassVar[str] = "factors for keys, values and the feed-forward's inside"
    equation: ClassVar[str] = "softmax(Q (l_k * K)^T / sqrt(d)) (l_v * V); h = W_down (l_ff * f(W_up x))"
    paper: ClassVar[str] = "Liu et al. 2022, arXiv:2205.05638"
    default_learning_rate: ClassVar[float] = 1e-2
    learning_rate_source: ClassVar[str] = (
        "measured: validation .794 at 1.4e-3, .838 at 6.5e-3, .843 at 3e-2, .499 at 0.14 (minilm-l6, 8,017 movie-snippets, 3 epochs);"
        " loss 3.462, 3.361, 3.332, 3.961 (smollm2-135m, 600 turns of friends-dialogue); Liu et al. 2022 have 3e-3 for T0"
    )
    starts_as_backbone: ClassVar[bool] = True

    @property
    def targets(self) -> list[str]:
        """The sites whose output is scaled."""
        return ["key", "value"]

    def peft_config(self, anatomy: Anatomy) -> Any:
        """Return the `IA3Config`."""
        from peft import IA3Config

        feed_forward = anatomy.modules(["down"])
        return IA3Config(
            task_type=anatomy.peft_task_type,
            target_modules=[*anatomy.modules(self.targets), *feed_forward],
            feedforward_modules=feed_forward,
            modules_to_save=list(anatomy.head) or None,
        )
