"""LoRA and its variants: low-rank updates beside frozen linear layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pewb.errors import RefusedError
from pewb.strategies.peft_engine import PeftStrategy

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy

_SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    # The exact decomposition: `pissa_niter_16` draws random numbers, so that a saved adapter would not find its backbone.
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "loftq": {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4, "loftq_iter": 1}},
}


class Lora(PeftStrategy):
    """Train B·A in h = W x + (alpha / rank) B A x (Hu et al. 2022, equation 3); B starts at zero.

    `rslora` divides by sqrt(rank) instead of rank (Kalajdzievski 2023, theorem 3.2). `dora` trains the direction of W + B A
    and, apart from it, a magnitude m for each output (Liu et al. 2024, equation 5). `pissa` starts B·A as the principal part
    of W (Meng et al. 2024, equations 2 to 4), `olora` as the first directions of its QR decomposition (Büyükakyüz 2024,
    section 3), and both take that out of W, so that the model starts as the backbone but for rounding; in int8 and 4 bits
    `olora` rounds what is left of W a second time. `loftq` rounds W to 4 bits and starts B·A as what that lost (Li et al.
    2024, section 3). Loading takes the same out of an untouched backbone, as PEFT does.
    """

    kind: Literal["lora"] = "lora"
    variant: Literal["plain", "rslora", "dora", "pissa", "olora", "loftq"] = "plain"
    """How the update is scaled, parted or begun; each is a method of its own."""
    rank: int = Field(default=8, ge=1)
    """Of B·A."""
    alpha: float = Field(default=16, gt=0)
    """The update is multiplied by alpha / rank (rslora: alpha / sqrt(rank))."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of what goes into the update."""
    targets: list[str] = Field(default=["query", "value"], min_length=1)
    """Canonical site names."""
    top_layers: int | None = Field(default=None, ge=1)
    """Adapt only so many layers below the head; left out: all."""

    trains: ClassVar[str] = "low-rank updates of linear layers"
    equation: ClassVar[str] = "h = W x + (alpha / r) B A x"
    paper: ClassVar[str] = (
        "Hu et al. 2022, arXiv:2106.09685; rslora: Kalajdzievski 2023, arXiv:2312.03732; dora: Liu et al. 2024,"
        " arXiv:2402.09353; pissa: Meng et al. 2024, arXiv:2404.02948; olora: Büyükakyüz 2024, arXiv:2406.01775;"
        " loftq: Li et al. 2024, arXiv:2310.08659"
    )
    default_learning_rate: ClassVar[float] = 5e-4
    learning_rate_source: ClassVar[str] = "Hu et al. 2022, table 9: RoBERTa-base on SST-2"
    starts_as_backbone: ClassVar[bool] = True
    has_lora_matrices: ClassVar[bool] = True

    def refuses(self, quantization: str, anatomy: Anatomy | None = None, device: str | None = None) -> str | None:
        """Refuse variants where PEFT can't start them: pissa, loftq and dora by storage, olora on GPT-2, loftq by device."""
        quantized = quantization != "none"
        if self.variant == "pissa" and quantized:
            return "PEFT can't take the principal part out of quantised weights"
        if self.variant == "loftq" and quantized:
            return "LoftQ does its own rounding, of weights that are not quantised yet"
        if self.variant == "loftq" and device is not None and device not in ("cuda", "xpu"):
            return "PEFT computes LoftQ on CUDA or XPU devices only"
        if self.variant == "dora" and quantization == "int8" and device == "cpu":
            return "PEFT, dequantising int8 weights on a CPU for their norms, loses their scales"
        if self.variant == "olora" and not quantized and anatomy is not None and anatomy.has_conv1d:
            return "PEFT's OLoRA takes transformers' Conv1D for a linear layer, whose weight is the other way round"
        return None

    def describe(self) -> str:
        """Return variant, rank, sites, and how many layers if not all."""
        variant = "" if self.variant == "plain" else f"{self.variant} "
        top = "" if self.top_layers is None else f" top {self.top_layers}"
        return f"{variant}r={self.rank} a={self.alpha:g} {'+'.join(self.targets)}{top}"

    def peft_config(self, anatomy: Anatomy) -> Any:
        """Return the `LoraConfig`."""
        from peft import LoraConfig

        return LoraConfig(
            task_type=anatomy.peft_task_type,
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self._modules(anatomy),
            modules_to_save=list(anatomy.head) or None,
            **_SETTINGS[self.variant],
        )

    def _modules(self, anatomy: Anatomy) -> list[str]:
        """Return the modules to adapt.

        Raises:
            RefusedError: there are not so many layers, or the sites are in none of them.
        """
        modules = anatomy.modules(self.targets)
        if self.top_layers is None:
            return modules
        available = anatomy.top_stack.num_layers
        if self.top_layers > available:
            raise RefusedError(
                f"strategy.top_layers: {self.top_layers} layers asked for, the backbone has {available};"
                f" allowed: 1 to {available}"
            )
        within = tuple(layer + "." for layer in anatomy.layer_modules(self.top_layers))
        modules = [module for module in modules if module.startswith(within)]
        if not modules:
            raise RefusedError(
                f"strategy.targets: {', '.join(self.targets)} match nothing in the top {self.top_layers} layers"
                f" of a {anatomy.model_type} model; name more layers"
            )
        return modules
