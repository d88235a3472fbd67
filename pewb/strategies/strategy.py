"""What every strategy is: its keys, its facts, and how it is applied, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import nn

    from pewb.anatomy import Anatomy

QUANTIZATIONS = ("none", "int8", "nf4", "fp4")


class Strategy(BaseModel):
    """The keys of a recipe's `[strategy]` section, and the facts that hold for every use of the strategy."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str

    trains: ClassVar[str]
    """What is trained, in a few words; the head is trained under every strategy."""
    paper: ClassVar[str]
    default_learning_rate: ClassVar[float]
    learning_rate_source: ClassVar[str]
    starts_as_backbone: ClassVar[bool]
    """Whether the model computes exactly what the backbone computes until the first step."""
    quantizations: ClassVar[tuple[str, ...]] = QUANTIZATIONS
    quantization_refusal: ClassVar[str] = ""
    """Why the quantizations that are left out above can't be."""
    supports_gradient_checkpointing: ClassVar[bool] = True
    padding_side: ClassVar[str] = "right"
    """Where a decoder's batches are padded under this strategy."""

    def describe(self) -> str:
        """Return the settings in a few words, for a table."""
        return ""

    def virtual_tokens(self) -> int:
        """Return how many of the model's positions the strategy takes up."""
        return 0

    def misfit(self, anatomy: Anatomy) -> str | None:
        """Return why an architecture can't have this strategy, or None if it can."""
        return None

    def trained_modules(self, anatomy: Anatomy) -> list[str]:
        """Return the backbone's own modules that are trained, and so are never quantised (the head is not named).

        Raises:
            RefusedError: the settings do not fit the architecture.
        """
        return []

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Freeze `model`, insert what is trained, and return the model to train."""
        raise NotImplementedError

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
