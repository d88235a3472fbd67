"""BitFit: the biases of the backbone, and nothing else of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pewb.strategies.strategy import Strategy, freeze_except

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy

BIAS = "trained_bias"
"""The name under which a quantised layer holds the bias that was taken out of it."""


class BitFit(Strategy):
    """Train every b in h = W x + b and in the layer norms (Ben Zaken et al. 2022, section 3).

    The biases of quantised layers are no part of what is quantised. bitsandbytes casts them to the type of its input
    before it uses them, in place, and 16-bit biases would lose small updates; so they are added outside of its layers.
    """

    kind: Literal["bitfit"] = "bitfit"

    trains: ClassVar[str] = "the biases"
    equation: ClassVar[str] = "h = W x + b, only b trained"
    paper: ClassVar[str] = "Ben Zaken et al. 2022, arXiv:2106.10199"
    default_learning_rate: ClassVar[float] = 1e-3
    learning_rate_source: ClassVar[str] = "Ben Zaken et al. 2022, the authors' run_glue.py: 1e-3 with AdamW"
    starts_as_backbone: ClassVar[bool] = True

    def misfit(self, anatomy: Anatomy) -> str | None:
        """Refuse architectures without biases, such as Llama and T5."""
        return None if anatomy.biases else "none of its layers has a bias"

    def trained_modules(self, anatomy: Anatomy) -> list[str]:
        """Return the norms: a norm's gain must be stored in the type of its trained bias."""
        return list(anatomy.norms)

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Freeze everything but the biases and the head."""
        freeze_except(model, list(anatomy.head))
        for name in anatomy.biases:
            model.get_parameter(name).requires_grad_(True)
            _take_out_of_quantized(model.get_submodule(name.removesuffix(".bias")))
        return model


def _take_out_of_quantized(module: Any) -> None:
    """Add the bias of `module` to its output, (…, features), instead of inside, if its weights are quantised."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.is_floating_point():
        return
    bias = module.bias
    module.bias = None
    module.register_parameter(BIAS, bias)
    module.register_forward_hook(lambda layer, _inputs, output: output + layer.get_parameter(BIAS).to(output.dtype))
