"""What there is to choose from: strategies, the catalogue's tasks and backbones, and GPUs, as rows of facts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pewb.errors import InputError, RefusedError, nearest

if TYPE_CHECKING:
    from pewb.anatomy import Anatomy
    from pewb.strategies import Strategy

FAMILIES = ("bert", "roberta", "deberta-v2", "llama", "gpt2", "t5")
"""The architectures of the matrix; the conformance suite trains each strategy on each of them."""
STORAGES = ("none", "int8", "nf4")
"""The quantizations of the matrix."""
_LORA_PLUS = (
    "training.lora_plus_ratio: LoRA+, B learns so many times as fast as A (16: Hayou et al. 2024, arXiv:2402.12354)"
)


def listing(what: str) -> list[dict[str, Any]]:
    """Return a row for each of `what`: "strategies", "tasks", "backbones", "gpus" or "keys".

    Raises:
        InputError: `what` is none of these.
    """
    listings = {"strategies": _strategies, "tasks": _tasks, "backbones": _backbones, "gpus": _gpus, "keys": _keys}
    if what not in listings:
        raise InputError(f"list: got '{what}'{nearest(what, list(listings))}; allowed: {', '.join(listings)}")
    return listings[what]()


def _strategies() -> list[dict[str, Any]]:
    from pewb.strategies import strategies

    return [
        {
            "name": name,
            "description": strategy.trains,
            "equation": strategy.equation,
            "learning_rate": strategy.default_learning_rate,
            "learning_rate_source": strategy.learning_rate_source,
            "quantization": list(strategy.quantizations),
            "gradient_checkpointing": strategy.supports_gradient_checkpointing,
            "refuses": _refuses(strategy),
            "goes_with": [_LORA_PLUS] if strategy.has_lora_matrices else [],
            "keys": [key for key in strategy.model_fields if key != "kind"],
            "variants": [value for settings in strategy.variants() for value in settings.values()],
            "paper": strategy.paper,
        }
        for name, strategy in strategies().items()
    ]


def _refuses(strategy: type[Strategy]) -> list[str]:
    """Return what `strategy` refuses and why, in the words of the methods that refuse."""
    docs = [(method.__doc__ or "").partition("\n")[0] for method in (strategy.misfit, strategy.refuses)]
    told = [doc.removeprefix("Refuse ").removesuffix(".") for doc in docs if doc.startswith("Refuse ")]
    return told + (
        [f"{', '.join(_left_out(strategy))}: {strategy.quantization_refusal}"] if strategy.quantization_refusal else []
    )


def _left_out(strategy: type[Strategy]) -> list[str]:
    from pewb.strategies.strategy import QUANTIZATIONS

    return [kind for kind in QUANTIZATIONS if kind not in strategy.quantizations]


def _tasks() -> list[dict[str, Any]]:
    from pewb.assets import cached, tasks

    return [
        {
            "name": name,
            "description": entry.description,
            "kind": entry.spec["kind"],
            "license": entry.license,
            "cached": cached("task", name),
        }
        for name, entry in tasks().items()
    ]


def _backbones() -> list[dict[str, Any]]:
    from pewb.assets import backbones, cached

    return [
        {
            "name": name,
            "description": entry.description,
            "architecture": entry.model_type,
            "parameters": entry.parameters,
            "parameters_of": entry.parameters_of,
            "license": entry.license,
            "cached": cached("backbone", name),
            "plannable": entry.config is not None,
        }
        for name, entry in backbones().items()
    ]


def _gpus() -> list[dict[str, Any]]:
    from pewb.planner.gpus import gpus

    return [
        {
            "name": name,
            "description": one.description,
            "memory_bytes": one.memory_bytes,
            "usable_bytes": one.usable_bytes,
            "compute_capability": ".".join(map(str, one.compute_capability)),
            "bf16": one.has_bf16,
            "source": one.source,
        }
        for name, one in gpus().items()
    ]


def _keys() -> list[dict[str, Any]]:
    from pewb.recipe import recipe_keys

    return [
        {
            "name": key.name,
            "description": key.description,
            "allowed": key.allowed,
            "default": "required" if key.is_required else key.default,
            "of": key.kinds,
        }
        for key in recipe_keys()
    ]


@dataclass(frozen=True)
class Method:
    """A row of the matrix: a strategy, or one of the methods that it stands for."""

    strategy: str
    settings: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return " ".join([self.strategy, *(value for _, value in self.settings)])


@dataclass(frozen=True)
class Combination:
    """A cell of the matrix, and why it can't be, if it can't."""

    method: Method
    architecture: str
    quantization: str
    refusal: str | None


def methods() -> list[Method]:
    """Return every strategy, once for each method that it stands for."""
    from pewb.strategies import strategies

    return [
        Method(name, tuple(settings.items()))
        for name, strategy in strategies().items()
        for settings in strategy.variants()
    ]


def matrix(device: str) -> list[Combination]:
    """Return every method × architecture × quantization, by the facts that a recipe and the assembly go by.

    The architectures are in the size that transformers gives them by default, without weights; `device` is "cpu", "cuda" …
    """
    from pewb.strategies import strategies

    anatomies = {family: _anatomy(family) for family in FAMILIES}
    return [
        Combination(
            method,
            family,
            quantization,
            _refusal(strategies()[method.strategy](**dict(method.settings)), anatomy, quantization, device),
        )
        for method in methods()
        for family, anatomy in anatomies.items()
        for quantization in STORAGES
    ]


def matrix_json(combinations: list[Combination]) -> dict[str, Any]:
    """Return the matrix as a document: its cells, and the counts."""
    cells = [
        asdict(one)
        | {"method": str(one.method), "strategy": one.method.strategy, "settings": dict(one.method.settings)}
        for one in combinations
    ]
    refused = sum(one.refusal is not None for one in combinations)
    return {"combinations": len(cells), "refused": refused, "matrix": cells}


def _anatomy(family: str) -> Anatomy:
    from transformers import AutoConfig

    from pewb.backbone import read_blueprint

    with TemporaryDirectory(prefix="pewb-") as folder:
        AutoConfig.for_model(family).save_pretrained(folder)
        return read_blueprint(Path(folder), ["negative", "positive"]).anatomy


def _refusal(strategy: Strategy, anatomy: Anatomy, quantization: str, device: str) -> str | None:
    """Return why a combination can't be, the architecture's reason before the quantization's."""
    if reason := strategy.misfit(anatomy):
        return reason
    try:
        strategy.trained_modules(anatomy)
    except RefusedError as error:
        return str(error)
    return strategy.refuses(quantization, anatomy, device)
