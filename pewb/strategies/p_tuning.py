"""P-tuning: virtual tokens that a small network computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pewb.strategies.placed_prompt import PlacedPrompt, num_prompts

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class PTuning(PlacedPrompt):
    """Train a prompt encoder g and its inputs e, and read [g(e); X_e] (Liu et al. 2021, section 3.2).

    The paper puts anchor words between the virtual tokens; here they stand in one piece, behind an encoder's [CLS] or next
    to a decoder's text (`PlacedPrompt`). They are read from the first step on, so the model does not start as the
    backbone. What is saved is g(e) alone.
    """

    kind: Literal["p_tuning"] = "p_tuning"
    encoder: Literal["mlp", "lstm"] = "mlp"
    """The prompt encoder: two hidden layers, or the paper's bidirectional LSTM."""
    encoder_width: int | None = Field(default=None, ge=1)
    """The prompt encoder's hidden size; left out: the backbone's."""

    trains: ClassVar[str] = "a network that makes virtual tokens"
    equation: ClassVar[str] = "h = f([g(e); X_e])"
    paper: ClassVar[str] = "Liu et al. 2021, arXiv:2103.10385"
    default_learning_rate: ClassVar[float] = 3e-3
    learning_rate_source: ClassVar[str] = (
        "measured: minilm-l6 on 4,000 movie-snippets, 2 epochs, validation: .733 at 9.5e-4, .739 at 3e-3, .731 at 9.5e-3"
    )

    def describe(self) -> str:
        """Return the prompt's length and its encoder."""
        return f"{super().describe()} {self.encoder}"

    def peft_config(self, anatomy: Anatomy) -> Any:
        """Return the `PromptEncoderConfig`."""
        from peft import PromptEncoderConfig

        return PromptEncoderConfig(
            task_type=anatomy.peft_task_type,
            num_virtual_tokens=self.num_virtual_tokens,
            encoder_reparameterization_type=self.encoder.upper(),
            encoder_hidden_size=self.encoder_width,
            modules_to_save=list(anatomy.head) or None,
            num_transformer_submodules=num_prompts(anatomy),
        )
