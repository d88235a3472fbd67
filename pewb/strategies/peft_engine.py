"""PEFT as the engine: what the strategies that PEFT implements have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pewb.strategies.strategy import Strategy

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy


class PeftStrategy(Strategy):
    """A strategy that PEFT implements: saved and loaded in PEFT's own format."""

    def peft_config(self, anatomy: Anatomy) -> Any:
        """Return PEFT's configuration for this strategy on a model with `anatomy`."""
        raise NotImplementedError

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Freeze `model` and let PEFT insert the adapter; the head becomes a trained copy."""
        from peft import get_peft_model

        return _keeping_types(get_peft_model(model, self.peft_config(anatomy)))

    def save(self, model: Any, folder: Path) -> None:
        """Write PEFT's `adapter_model.safetensors` (the head is in it) and `adapter_config.json`."""
        model.save_pretrained(folder)

    def load(self, model: Any, anatomy: Anatomy, folder: Path) -> Any:
        """Return `model` with the adapter in `folder`, for use (PEFT can't go on training a saved prompt)."""
        from peft import PeftModel

        return _keeping_types(PeftModel.from_pretrained(model, folder))


def _keeping_types(model: Any) -> Any:
    """Hand on what a quantised layer gets in the type it came in.

    Some of PEFT's quantised layers (IA3's, AdaLoRA's), which ask for autocast on CUDA only, return float32 on a CPU; norms
    and masks in bf16 refuse that.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and type(module).__module__.endswith(".bnb"):
            module.register_forward_hook(lambda _, inputs, output: output.to(inputs[0].dtype))
    return model


def refused_conv1d(quantization: str, anatomy: Anatomy | None) -> str | None:
    """Return why a method for which PEFT has no `Conv1D` layer can't be, or None if it can."""
    if anatomy is not None and anatomy.has_conv1d and quantization == "none":
        return (
            "PEFT has no such layer for transformers' Conv1D"
            " (int8, nf4 and fp4 put bitsandbytes' own layers in its place)"
        )
    return None
