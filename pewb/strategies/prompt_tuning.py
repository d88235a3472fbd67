"""Prompt tuning: trained embeddings before the text's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pewb.strategies.placed_prompt import PlacedPrompt, num_prompts

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class PromptTuning(PlacedPrompt):
    """Train virtual tokens P_e and read [P_e; X_e] (Lester et al. 2021, section 2), started from sampled vocabulary.

    They stand behind an encoder's [CLS] and next to a decoder's text (`PlacedPrompt`), and are read from the first step
    on, so the model does not start as the backbone.
    """

    kind: Literal["prompt_tuning"] = "prompt_tuning"

    trains: ClassVar[str] = "virtual tokens before the text"
    equation: ClassVar[str] = "h = f([P_e; X_e])"
    paper: ClassVar[str] = "Lester et al. 2021, arXiv:2104.08691"
    default_learning_rate: ClassVar[float] = 1e-2
    learning_rate_source: ClassVar[str] = (
        "measured: minilm-l6 on all movie-snippets, 3 epochs, validation (the committed search): .755 at 1e-3, .771 at"
        " 4.6e-3, .755 at 2.2e-2, .696 at 1e-1; 1e-2 lies between 4.6e-3 and 2.2e-2"
    )

    def peft_config(self, anatomy: Anatomy) -> Any:
        """Return the `PromptTuningConfig`."""
        from peft import PromptTuningConfig, PromptTuningInit

        return PromptTuningConfig(
            task_type=anatomy.peft_task_type,
            num_virtual_tokens=self.num_virtual_tokens,
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
            modules_to_save=list(anatomy.head) or None,
            num_transformer_submodules=num_prompts(anatomy),
        )
