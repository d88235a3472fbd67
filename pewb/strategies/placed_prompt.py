"""A prompt in its place: what the strategies that train virtual tokens before the text have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from pewb.strategies.peft_engine import PeftStrategy

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class PlacedPrompt(PeftStrategy):
    """A strategy that trains virtual tokens, which stand where the head can do without position 0.

    PEFT puts the virtual tokens before everything. An encoder's head reads position 0, which must stay [CLS], and a
    decoder's batch is padded on the left, which must not come between prompt and text (PEFT issues 764 and 1093). So they
    are moved behind [CLS], or directly before the text, on their way into the backbone. The saved prompt is PEFT's, but
    plain PEFT puts it elsewhere and so predicts otherwise: use `load`. Where the head reads every token, a language model's
    among them, the batch is padded on the right, and PEFT's place is the right one: before the text, or before what an
    encoder-decoder's encoder reads.
    """

    num_virtual_tokens: int = Field(default=20, ge=1)
    """Vectors in the place of words, before the text."""

    starts_as_backbone: ClassVar[bool] = False
    padding_side: ClassVar[str] = "left"

    def misfit(self, anatomy: Anatomy) -> str | None:
        """Refuse encoder-decoders that classify: transformers' classification head for them takes no embeddings."""
        return no_embeddings(anatomy)

    def describe(self) -> str:
        """Return the prompt's length."""
        return f"{self.num_virtual_tokens} tokens"

    def virtual_tokens(self) -> int:
        """Return the prompt's length."""
        return self.num_virtual_tokens

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Let PEFT insert the prompt, and move it to its place."""
        return placed(super().apply(model, anatomy), self.num_virtual_tokens, anatomy)

    def load(self, model: Any, anatomy: Anatomy, folder: Path) -> Any:
        """Return `model` with the prompt in `folder`, moved to its place."""
        return placed(super().load(model, anatomy, folder), self.num_virtual_tokens, anatomy)


def no_embeddings(anatomy: Anatomy) -> str | None:
    """Return why a prompt can't be put before an architecture's text, or None if it can."""
    if anatomy.is_encoder_decoder and not anatomy.is_language_model:
        return "the classification head of an encoder-decoder does not take embeddings as its input"
    return None


def num_prompts(anatomy: Anatomy) -> int | None:
    """Return for how many parts of the model PEFT makes a prompt: for an encoder-decoder it makes two and reads one."""
    return 1 if anatomy.is_language_model and anatomy.is_encoder_decoder else None


def placed(model: Any, num_virtual_tokens: int, anatomy: Anatomy) -> Any:
    """Return `model`, into which PEFT has inserted a prompt, with the prompt in its place."""
    if anatomy.reads_every_token:
        return model
    return place_prompt(model, num_virtual_tokens, anatomy.is_encoder)


def place_prompt(model: Any, num_virtual_tokens: int, is_encoder: bool) -> Any:
    """Reorder what PEFT passes to the backbone, (batch, prompt + tokens, hidden), so that the prompt stands in its place."""
    import torch

    def reorder(_module: Any, positional: tuple[Any, ...], arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = arguments.get("attention_mask")
        embeddings = arguments.get("inputs_embeds")
        if embeddings is None or mask is None:
            return positional, arguments
        rank = torch.full_like(mask, 2, dtype=torch.long)
        rank[:, :num_virtual_tokens] = 1
        if is_encoder:
            rank[:, num_virtual_tokens] = 0
        else:
            rank[mask == 0] = 0
        order = rank.argsort(dim=1, stable=True)
        arguments = dict(arguments)
        arguments["inputs_embeds"] = embeddings.gather(1, order[..., None].expand_as(embeddings))
        arguments["attention_mask"] = mask.gather(1, order)
        if arguments.get("token_type_ids") is not None:
            arguments["token_type_ids"] = arguments["token_type_ids"].gather(1, order)
        if not is_encoder:
            arguments["position_ids"] = (arguments["attention_mask"].long().cumsum(1) - 1).clamp(min=0)
        return positional, arguments

    model.base_model.register_forward_pre_hook(reorder, with_kwargs=True)
    return model
