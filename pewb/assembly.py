"""From a recipe's sections to something that can be trained: model, tokenizer, strategy, casts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pewb.anatomy import Anatomy
from pewb.backbone import assume_padding, build_backbone, check_length, load_backbone, load_tokenizer, read_blueprint
from pewb.device import Computing
from pewb.errors import RefusedError
from pewb.kernels import quicken, quicken_inserted
from pewb.measurement.parameters import head_parameters
from pewb.prefix.frozen import Prefix, find_prefix
from pewb.quantization import is_quantized, quantization_config
from pewb.recipe import Quantization, Training
from pewb.strategies import Strategy
from pewb.strategies.strategy import QUANTIZATIONS
from pewb.tasks import TaskFamily

logger = logging.getLogger(__name__)


@dataclass
class Assembly:
    """A backbone with its head, before (`load`) or after (`insert`) the strategy was applied."""

    model: Any
    tokenizer: Any
    """None for a virtual model."""
    anatomy: Anatomy
    computing: Computing
    strategy: Strategy
    notices: list[str]
    """What the user should know of how the recipe was read."""
    prefix: Prefix | None = None
    """What lies below the lowest trained layer, where the strategy trains only higher ones."""


def load(
    name: str,
    source: Path | Mapping[str, Any],
    labels: Sequence[str],
    strategy: Strategy,
    quantization: Quantization,
    training: Training,
    computing: Computing,
    seed: int,
    task: TaskFamily | None = None,
) -> Assembly:
    """Load the untouched model for `strategy`: quantised, cast and on its device.

    `source` is the backbone's folder, or the content of a `config.json`: then the model is virtual, for a plan.

    The head of `task` (left out: a text classification) over the classes `labels` is new, unless it predicts tokens, or the
    files hold one of its shape.

    `name` is what the backbone is called where others may have it (PEFT writes it into what it saves).

    Raises:
        InputError: the backbone's files or `max_tokens` do not serve.
        RefusedError: the strategy does not fit the architecture.
    """
    blueprint = read_blueprint(source, labels, training.dropout, task)
    anatomy = blueprint.anatomy
    _refuse_unfit(strategy, anatomy, quantization.kind, computing.kind)
    check_length(blueprint, training.max_tokens, strategy.virtual_tokens())
    tokenizer = None
    if blueprint.folder:
        tokenizer = load_tokenizer(blueprint, strategy.padding_side)
    else:
        assume_padding(blueprint)
    kept = [*strategy.trained_modules(anatomy), *anatomy.head]
    torch.manual_seed(seed)
    config = quantization_config(quantization, [*kept, *anatomy.output], computing.compute_type)
    if blueprint.folder:
        model = load_backbone(blueprint, config, computing.device)
    else:
        model = build_backbone(blueprint, config)
    model.name_or_path = model.config._name_or_path = name
    _cast(model, kept, computing)
    if quantization.kind == "none":
        model.to(computing.device)
    quicken(model, anatomy, computing)
    notices = _notices(strategy, anatomy)
    return Assembly(model, tokenizer, anatomy, computing, strategy, notices)


def insert(
    assembly: Assembly,
    gradient_checkpointing: bool,
    seed: int,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> None:
    """Apply the strategy to the loaded model, in place; what is inserted is drawn from `seed`.

    `autocast` gives the context in which the model computes.

    Raises:
        RefusedError: a site of the strategy matches nothing.
    """
    torch.manual_seed(seed)
    assembly.model = assembly.strategy.apply(assembly.model, assembly.anatomy)
    assembly.model.to(assembly.computing.device)
    quicken_inserted(assembly.model, assembly.computing)
    if assembly.computing.precision != "bf16-true":
        for parameter in assembly.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if gradient_checkpointing:
        # Non-reentrant: the frozen embeddings' outputs need no gradient, and nothing is silently left untrained.
        assembly.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if hasattr(assembly.model.config, "use_cache"):
        assembly.model.config.use_cache = False
    trained = {id(parameter) for parameter in assembly.model.parameters() if parameter.requires_grad}
    assert all(id(parameter) in trained for parameter in head_parameters(assembly.model, assembly.anatomy))
    prefix = find_prefix(assembly.model, assembly.anatomy, assembly.computing.device, autocast)
    if isinstance(prefix, str):
        assembly.notices.append(f"the frozen layers are computed anew in every epoch: {prefix}")
    else:
        assembly.prefix = prefix


def _refuse_unfit(strategy: Strategy, anatomy: Anatomy, quantization: str, device: str) -> None:
    if reason := strategy.misfit(anatomy):
        raise RefusedError(
            f"strategy '{strategy.kind}' does not fit '{anatomy.model_type}' models: {reason};"
            " choose another strategy (pewb list strategies) or backbone"
        )
    if reason := strategy.refuses(quantization, anatomy, device):
        allowed = [kind for kind in QUANTIZATIONS if not strategy.refuses(kind, anatomy, device)]
        way_out = f"allowed: {', '.join(allowed)}" if allowed else "choose another strategy (pewb list strategies)"
        raise RefusedError(
            f"quantization: '{quantization}' does not go with strategy '{strategy.kind}' ({strategy.describe()})"
            f" on a '{anatomy.model_type}' model on {device}: {reason}; {way_out}"
        )


def _notices(strategy: Strategy, anatomy: Anatomy) -> list[str]:
    fused = anatomy.fused(getattr(strategy, "targets", []))
    if not fused:
        return []
    return [f"{', '.join(fused)}: {anatomy.model_type} computes them in one projection, which is adapted as a whole"]


def _cast(model: nn.Module, trained_modules: Sequence[str], computing: Computing) -> None:
    """Store frozen weights in the compute type; weights to be trained stay float32, unless everything is bf16-true."""
    prefixes = tuple(name + "." for name in trained_modules)
    for name, parameter in model.named_parameters():
        if is_quantized(parameter):
            continue
        if computing.precision == "bf16-true" or not name.startswith(prefixes):
            parameter.data = parameter.data.to(computing.compute_type)
