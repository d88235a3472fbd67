"""Any method that PEFT has, by PEFT's own configuration."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from pewb.errors import InputError, RefusedError, nearest
from pewb.strategies.adalora import freeze_ranks, orthogonality_penalty
from pewb.strategies.peft_engine import PeftStrategy
from pewb.strategies.placed_prompt import no_embeddings, num_prompts, placed
from pewb.strategies.prefix_tuning import PrefixTuning

if TYPE_CHECKING:
    import torch

    from pewb.anatomy import Anatomy

_PREFIXES = ("PREFIX_TUNING", "CARTRIDGE")
"""Virtual tokens that are handed over as past keys and values."""

_PLAIN_PROMPTS = ("PROMPT_TUNING", "P_TUNING")
"""Virtual tokens that are put before the text, and nothing else."""

_MULTITASK = ("POLY", "MULTITASK_PROMPT_TUNING")
"""Methods that ask with every example of which task it is."""

_TARGETS = ("target_modules", "feedforward_modules")
"""Keys that name modules: a list of names, or a pattern."""

_OURS = ("task_type", "inference_mode", "base_model_name_or_path", "revision", "auto_mapping", "peft_version")
"""What a configuration says of its own past: pewb says it anew."""


class Peft(PeftStrategy):
    """Train what PEFT's configuration says, and the head (Mangrulkar et al. 2022, the PEFT library).

    Whether the model starts as the backbone depends on the method. In `target_modules` and `feedforward_modules`, canonical
    site names stand for what they are in the architecture; any other name is PEFT's affair.
    """

    kind: Literal["peft"] = "peft"
    config: dict[str, Any] = Field(default={"peft_type": "LORA"})
    """PEFT's configuration with its `peft_type`, or the path of an `adapter_config.json`; left out: LoRA as PEFT has it."""

    trains: ClassVar[str] = "what a PEFT configuration says"
    equation: ClassVar[str] = "that of the configured method"
    paper: ClassVar[str] = "that of the configured method; by default LoRA: Hu et al. 2022, arXiv:2106.09685"
    default_learning_rate: ClassVar[float] = 1e-3
    learning_rate_source: ClassVar[str] = (
        "no source: 1e-3 lies between the rates of PEFT's methods, 1e-4 to 1e-2; look up the configured method's own"
    )
    starts_as_backbone: ClassVar[bool] = False

    @field_validator("config", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        """Return the configuration in the file that `value` names, so that the recipe holds all that it means."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(Path(value).read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{value} can't be read: {error.strerror}; name an adapter_config.json") from None
        except ValueError as error:
            raise ValueError(f"{value} is not JSON: {error}; name an adapter_config.json") from None

    @field_validator("config")
    @classmethod
    def _has_known_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING

        types = [kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING]
        peft_type = config.get("peft_type")
        if peft_type not in types:
            raise ValueError(
                f"peft_type: got {peft_type!r}{nearest(str(peft_type), types)}; allowed: {', '.join(types)}"
            )
        allowed = [field.name for field in fields(PEFT_TYPE_TO_CONFIG_MAPPING[peft_type])]
        faults = [f"{key}: unknown key{nearest(key, allowed)}" for key in config if key not in allowed]
        if faults:
            raise ValueError(f"{'; '.join(faults)}; PEFT's {peft_type} has {', '.join(sorted(allowed))}")
        if "modules_to_save" not in allowed:
            raise ValueError(f"peft_type: PEFT's {peft_type} has no modules_to_save, so it can't train the head")
        for key in _TARGETS:
            if isinstance(config.get(key), str):
                try:
                    re.compile(config[key])
                except re.error as error:
                    raise ValueError(f"{key}: {config[key]!r} is no pattern: {error}; list names instead") from None
        return {key: given for key, given in config.items() if key not in _OURS}

    @property
    def peft_type(self) -> str:
        """The method's name in PEFT."""
        return str(self.config["peft_type"])

    @property
    def title(self) -> str:
        """The strategy with the method's name: alone it would not say which."""
        return f"{self.kind} {self.peft_type}"

    @property
    def _places_prompt(self) -> bool:
        return self.virtual_tokens() > 0 and self.peft_type not in _PREFIXES

    def misfit(self, anatomy: Anatomy) -> str | None:
        """Refuse what prompt and prefix tuning refuse; what else PEFT refuses, it says itself when the run begins."""
        if self.peft_type in _PREFIXES:
            return PrefixTuning().misfit(anatomy)
        if anatomy.is_language_model and self._places_prompt and self.peft_type not in _PLAIN_PROMPTS:
            return f"PEFT's {self.peft_type} reads the labels of a language model, and pewb computes the loss from the logits"
        if self.peft_type in _MULTITASK:
            return f"PEFT's {self.peft_type} asks of which task each example is, and a run has one task"
        return no_embeddings(anatomy) if self._places_prompt else None

    def describe(self) -> str:
        """Return the method's name in PEFT, and its main size."""
        sizes = [f"{key}={self.config[key]}" for key in ("r", "num_virtual_tokens") if key in self.config]
        return " ".join([self.peft_type, *sizes])

    def virtual_tokens(self) -> int:
        """Return how many virtual tokens the configuration asks for."""
        return int(self.config.get("num_virtual_tokens") or 0)

    def peft_config(self, anatomy: Anatomy) -> Any:
        """Return PEFT's configuration object, with the sites spelled out and the head among what is trained."""
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING

        given = {key: value for key, value in self.config.items() if key != "peft_type"}
        for key in _TARGETS:
            if isinstance(given.get(key), list):
                given[key] = _spelled_out(given[key], anatomy)
        head = list(anatomy.head)
        saved = [*head, *(name for name in given.get("modules_to_save") or [] if name not in head)]
        given["modules_to_save"] = saved or None
        if self.peft_type in _PLAIN_PROMPTS:
            given.setdefault("num_transformer_submodules", num_prompts(anatomy))
        return PEFT_TYPE_TO_CONFIG_MAPPING[self.peft_type](task_type=anatomy.peft_task_type, **given)

    def apply(self, model: Any, anatomy: Anatomy) -> Any:
        """Let PEFT insert the method, and move a prompt to its place.

        Raises:
            InputError: a name in it matches no module of the model.
            RefusedError: PEFT refuses the configuration for this model.
        """
        import torch

        self._check_names(model, anatomy)
        try:
            applied = super().apply(model, anatomy)
        except (RefusedError, torch.OutOfMemoryError):
            raise
        except (
            ValueError,
            TypeError,
            NotImplementedError,
            KeyError,
            AttributeError,
            RuntimeError,
            IndexError,
        ) as error:
            if isinstance(error, NotImplementedError) and next(model.parameters()).is_meta:
                raise  # a virtual model has no numbers to begin from; that is no refusal of PEFT's
            raise RefusedError(
                f"strategy.config: PEFT refuses this {self.peft_type} on a {anatomy.model_type} model:"
                f" {type(error).__name__}: {error}; change the configuration or the backbone"
            ) from error
        _store_permutations_as_weights(applied)
        freeze_ranks(applied)
        return self._placed(applied, anatomy)

    def _check_names(self, model: Any, anatomy: Anatomy) -> None:
        """Tell names that match nothing: PEFT passes over them as long as another matches."""
        modules = [name for name, _ in model.named_modules()]
        known = list(dict.fromkeys([*anatomy.site_modules, *(name.rpartition(".")[2] for name in modules if name)]))
        for key in _TARGETS:
            wanted = self.config.get(key)
            if isinstance(wanted, list):
                lost = [one for one in wanted if not _matches(_spelled_out([one], anatomy), modules)]
            elif isinstance(wanted, str) and wanted != "all-linear":
                lost = [] if any(re.fullmatch(wanted, name) for name in modules) else [wanted]
            else:
                lost = []
            if lost:
                raise InputError(
                    f"strategy.config.{key}: '{lost[0]}' matches nothing in a '{anatomy.model_type}' model"
                    f"{nearest(str(lost[0]), known)}"
                )

    def load(self, model: Any, anatomy: Anatomy, folder: Path) -> Any:
        """Return `model` with the adapter in `folder`, a prompt in its place."""
        return self._placed(super().load(model, anatomy, folder), anatomy)

    def _placed(self, model: Any, anatomy: Anatomy) -> Any:
        if self.peft_type in _PREFIXES:
            model.gradient_checkpointing_enable = _refuse_checkpointing
        elif self._places_prompt:
            return placed(model, self.virtual_tokens(), anatomy)
        return model

    def penalty(self, model: Any) -> torch.Tensor | None:
        """Return AdaLoRA's penalty, which PEFT adds only to a loss that the model computes itself."""
        return orthogonality_penalty(model) if self.peft_type == "ADALORA" else None

    def after_step(self, model: Any, step: int) -> None:
        """Let a method that hands out a budget while training (AdaLoRA, AdaMSS) do so."""
        allocate = getattr(model.base_model, "update_and_allocate", None)
        if allocate is not None and not self.virtual_tokens():
            allocate(step)


def _store_permutations_as_weights(model: Any) -> None:
    """Store BOFT's permutation matrices in the type of the weights that they permute, which loses nothing.

    PEFT keeps a matrix of the layer's width in float32 beside each layer, and makes a copy in the type of its input in
    every forward: 2.1 GB and as much again for two projections in each of Llama-3.2-3B's layers.
    """
    for module in model.modules():
        permutation = getattr(module, "boft_P", None)
        if permutation is not None and module.get_base_layer().weight.is_floating_point():
            module.boft_P = permutation.to(module.get_base_layer().weight)


def _refuse_checkpointing(**_: Any) -> None:
    raise RefusedError("training.gradient_checkpointing: a prefix gets no gradient with it; set it to false")


def _matches(names: list[str], modules: list[str]) -> bool:
    """Return whether any of the names is a module's, or the end of one's, as PEFT takes it."""
    return any(f".{module}".endswith(f".{name}") for name in names for module in modules)


def _spelled_out(names: list[str], anatomy: Anatomy) -> list[str]:
    """Return module names, with the canonical sites that the architecture has replaced by what they are there."""
    found: dict[str, None] = {}
    for name in names:
        is_site = name in anatomy.site_modules or bool(anatomy.fused([name]))
        found.update(dict.fromkeys(anatomy.modules([name]) if is_site else [name]))
    return list(found)
