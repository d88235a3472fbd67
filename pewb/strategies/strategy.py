"""What every strategy is: its keys, its facts, and how it is applied, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pewb.anatomy import Anatomy

QUANTIZATIONS = ("none", "int8", "nf4", "fp4")
VARIANT_KEYS = ("variant", "placement")
"""Keys whose every value makes a method of its own, with a row of its own in the matrix."""


class Strategy(BaseModel):
    """The keys of a recipe's `[strategy]` section, and the facts that hold for every use of the strategy."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True, use_attribute_docstrings=True
    )

    kind: str

    trains: ClassVar[str]
    """What is trained, in a few words; the head is trained under every strategy."""
    equation: ClassVar[str] = ""
    """The method in one line of plain text; trained are the symbols that the docstring names."""
    paper: ClassVar[str]
    default_learning_rate: ClassVar[float]
    learning_rate_source: ClassVar[str]
    starts_as_backbone: ClassVar[bool]
    """Whether the model computes what the backbone computes until the first step."""
    quantizations: ClassVar[tuple[str, ...]] = QUANTIZATIONS
    quantization_refusal: ClassVar[str] = ""
    """Why the quantizations that are left out above can't be."""
    supports_gradient_checkpointing: ClassVar[bool] = True
    has_lora_matrices: ClassVar[bool] = False
    """Whether it trains pairs of matrices A and B, which LoRA+ gives rates of their own."""
    padding_side: ClassVar[str] = "right"
    """Where a decoder's batches are padded under this strategy."""

    @classmethod
    def variants(cls) -> list[dict[str, str]]:
        """Return the settings of each method that the strategy stands for: the default first, alone if there is but one."""
        for key in VARIANT_KEYS:
            if key in cls.model_fields:
                return [{key: value} for value in get_args(cls.model_fields[key].annotation)]
        return [{}]

    @property
    def title(self) -> str:
        """What it is called where its settings are not told."""
        return self.kind

    def describe(self) -> str:
        """Return the settings in a few words, for a table."""
        return ""

    def virtual_tokens(self) -> int:
        """Return how many of the model's positions the strategy takes up."""
        return 0

    def misfit(self, anatomy: Anatomy) -> str | None:
        """Return why an architecture can't have this strategy, or None if it can.

        The docstring of a strategy's own begins with "Refuse", in words for `pewb list strategies`.
        """
        return None

    def refuses(self, quantization: str, anatomy: Anatomy | None = None, device: str | None = None) -> str | None:
        """Return why a backbone can't be stored in `quantization`, or None if it can.

        What depends on an architecture or on a kind of device is told only where they are given. As with `misfit`, the
        docstring of a strategy's own begins with "Refuse".
        """
        return None if quantization in self.quantizations else self.quantization_refusal

    def trained_modules(self, anatomy: Anatomy) -> list[str]:
        """Return the backbone's own modules that are trained, and so are never quantised (the head is not named).

        Raises:
            RefusedError: the settings do not fit the architecture.
        """
        return []

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Freeze `model`, insert what is trained, and return the model to train."""
        raise NotImplementedError

    def begin_training(self, model: Any, num_steps: int) -> None:
        """Prepare the applied `model` for a training of `num_steps` optimizer steps."""

    def penalty(self, model: Any) -> torch.Tensor | None:
        """Return what is added to the loss of every optimizer step, or None for nothing."""
        return None

    @property
    def acts_after_steps(self) -> bool:
        """Whether `after_step` does anything."""
        return type(self).after_step is not Strategy.after_step

    def after_step(self, model: Any, step: int) -> None:
        """Do what follows upon optimizer step `step`, counted from 1; the step's gradients are still there."""

    def save(self, model: Any, folder: Path) -> None:
        """Write what must be shipped beside the backbone into `folder`."""
        from pewb.strategies.storage import save_trained

        save_trained(model, folder)

    def load(self, model: Any, anatomy: Anatomy, folder: Path) -> Any:
        """Return an untouched `model` with what `save` wrote, for use."""
        from pewb.strategies.storage import load_trained

        applied = self.apply(model, anatomy)
        load_trained(applied, folder)
        return applied


def freeze_except(model: nn.Module, modules: list[str]) -> None:
    """Make exactly the parameters inside `modules` trainable (each converted to float32 later, by `assembly`)."""
    prefixes = tuple(name + "." for name in modules)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(name.startswith(prefixes))
