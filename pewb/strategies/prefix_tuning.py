"""Prefix tuning: trained keys and values before every layer's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pewb.strategies.peft_engine import PeftStrategy

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class PrefixTuning(PeftStrategy):
    """Train virtual keys and values P_k, P_v of each attention: attn(Q, [P_k; K], [P_v; V]).

    Li & Liang 2021, equation 3; as P-tuning v2 (Liu et al. 2022) without reparametrisation. A random prefix is read
    from the first step on, so the model does not start as the backbone.
    """

    kind: Literal["prefix_tuning"] = "prefix_tuning"
    num_virtual_tokens: int = Field(default=20, ge=1)
    """Keys and values before those of the text, in every layer."""

    trains: ClassVar[str] = "keys and values before every layer's"
    equation: ClassVar[str] = "attn(Q, [P_k; K], [P_v; V])"
    paper: ClassVar[str] = "Li & Liang 2021, arXiv:2101.00190"
    default_learning_rate: ClassVar[float] = 1e-2
    learning_rate_source: ClassVar[str] = (
        "Liu et al. 2022 (P-tuning v2), the authors' run_script/run_rte_bert.sh: 1e-2 with 20 tokens"
    )
    starts_as_backbone: ClassVar[bool] = False
    supports_gradient_checkpointing: ClassVar[bool] = False

    def misfit(self, anatomy: Anatomy) -> str | None:
        """Refuse encoder-decoders, and architectures that take no past keys and values (PEFT's own forward fails)."""
        if anatomy.is_encoder_decoder and anatomy.is_language_model:
            return "PEFT makes half of an encoder-decoder's prefix for its cross-attention, and throws that half away"
        if anatomy.is_encoder_decoder:
            return "PEFT has no prefix for the classification head of an encoder-decoder"
        if not anatomy.takes_past:
            return "PEFT hands the prefix over as past keys and values, and the architecture takes none"
        return None

    def describe(self) -> str:
        """Return the prefix's length."""
        return f"{self.num_virtual_tokens} tokens"

    def virtual_tokens(self) -> int:
        """Return the prefix's length: architectures with position tables number the text after it."""
        return self.num_virtual_tokens

    def peft_config(self, anatomy: Anatomy) -> Any:
        """Return the `PrefixTuningConfig`."""
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(
            task_type=anatomy.peft_task_type,
            num_virtual_tokens=self.num_virtual_tokens,
            modules_to_save=list(anatomy.head) or None,
        )
