"""AdaLoRA: low-rank updates whose ranks are handed out while training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pewb.strategies.peft_engine import PeftStrategy

if TYPE_CHECKING:
    import torch

    from pewb.anatomy import Anatomy


class AdaLora(PeftStrategy):
    """Train P, Lambda, Q in h = W x + P Lambda Q x, and keep the most important singular values of all layers together.

    Zhang et al. 2023, equation 3; equation 4 is the penalty that keeps P and Q orthogonal, section 3.2 weighs the values,
    and section 3.3 says how many are kept at each step. Lambda starts at zero, so the model starts as the backbone.
    """

    kind: Literal["adalora"] = "adalora"
    rank: int = Field(default=12, ge=1)
    """Singular values of each layer in the beginning (1.5 times the target: the paper's section 3.3)."""
    target_rank: int = Field(default=8, ge=1)
    """Singular values of each layer in the end, on average."""
    alpha: float = Field(default=16, gt=0)
    """The update is multiplied by alpha over the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of what goes into the update."""
    orthogonality: float = Field(default=0.1, ge=0)
    """Weight of the penalty."""
    initial_share: float = Field(default=0.12, ge=0, lt=1)
    """Share of the steps before the first value is dropped."""
    final_share: float = Field(default=0.44, ge=0, lt=1)
    """Share of the steps after the last one is."""
    interval: int = Field(default=1, ge=1)
    """Steps from one dropping to the next."""
    targets: list[str] = Field(default=["query", "value"], min_length=1)
    """Canonical site names."""

    trains: ClassVar[str] = "low-rank updates of linear layers, their ranks handed out while training"
    equation: ClassVar[str] = "h = W x + (alpha / r) P Lambda Q x"
    paper: ClassVar[str] = "Zhang et al. 2023, arXiv:2303.10512"
    default_learning_rate: ClassVar[float] = 8e-4
    learning_rate_source: ClassVar[str] = (
        "Zhang et al. 2023, the authors' NLU/scripts/run_debertav3_sst2.sh: 8e-4, as orthogonality 0.1 and the shares"
    )
    starts_as_backbone: ClassVar[bool] = True

    @model_validator(mode="after")
    def _leaves_something_to_do(self) -> AdaLora:
        if self.target_rank >= self.rank:
            raise ValueError(f"target_rank: {self.target_rank} is not less than rank = {self.rank}; nothing is dropped")
        if self.initial_share + self.final_share >= 1:
            raise ValueError("initial_share and final_share leave no steps between them; make their sum less than 1")
        return self

    def describe(self) -> str:
        """Return both ranks and the sites."""
        return f"r={self.rank}>{self.target_rank} a={self.alpha:g} {'+'.join(self.targets)}"

    def peft_config(self, anatomy: Anatomy) -> Any:
        """Return the `AdaLoraConfig`; the number of steps is told by `begin_training`."""
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            task_type=anatomy.peft_task_type,
            init_r=self.rank,
            target_r=self.target_rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            orth_reg_weight=self.orthogonality,
            deltaT=self.interval,
            total_step=1,
            target_modules=anatomy.modules(self.targets),
            modules_to_save=list(anatomy.head) or None,
        )

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Let PEFT insert the updates; freeze the ranks, by which it divides and which are no weights.

        PEFT casts them to the type of the layer's weights, and what it casts becomes trainable.
        """
        applied = super().apply(model, anatomy)
        freeze_ranks(applied)
        return applied

    def begin_training(self, model: Any, num_steps: int) -> None:
        """Spread the budget's course over the steps (over two if there is but one: PEFT weighs nothing in its last)."""
        config = model.active_peft_config
        config.total_step = max(num_steps, 2)
        config.tinit = int(self.initial_share * num_steps)
        config.tfinal = int(self.final_share * num_steps)

    def penalty(self, model: Any) -> torch.Tensor | None:
        """Return what P and Q lack of being orthogonal."""
        return orthogonality_penalty(model)

    def after_step(self, model: Any, step: int) -> None:
        """Drop the least important singular values that the budget no longer allows."""
        model.base_model.update_and_allocate(step)

    def save(self, model: Any, folder: Path) -> None:
        """Write the singular values that are left, and which those are.

        PEFT's own list of them is that of the last step, but the weights may be those of an earlier one.
        """
        model.active_peft_config.rank_pattern = kept_values(model)
        super().save(model, folder)


def freeze_ranks(model: Any) -> None:
    """Freeze the number of ranks that each AdaLoRA layer of `model` divides by."""
    for name, parameter in model.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad_(False)


def orthogonality_penalty(model: Any) -> torch.Tensor | None:
    """Return the mean of ||P^T P - I|| and ||Q Q^T - I|| over all layers of `model`, times the configured weight.

    PEFT adds this to a loss that the model computes itself; ours is computed from the logits.
    """
    import torch

    weight = model.active_peft_config.orth_reg_weight
    if not weight:
        return None
    norms = []
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            product = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
            norms.append(torch.norm(product - torch.eye(len(product), device=product.device), p="fro"))
    return weight * torch.stack(norms).mean()


def kept_values(model: Any) -> dict[str, list[bool]]:
    """Return for each layer's Lambda which of its values are not zero."""
    return {
        name: (values != 0).flatten().tolist()
        for name, values in model.base_model.model.named_parameters()
        if ".lora_E." in name
    }
