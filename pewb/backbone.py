"""Backbones: a pre-trained transformer with a new task head and its tokenizer, loaded from verified local files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from pewb.anatomy import Anatomy, anatomy_of, longest_input
from pewb.errors import InputError, RefusedError
from pewb.quantization import keep_trainable_after_evaluation

_DROPOUT_KEYS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "classifier_dropout_prob",
    "cls_dropout",
    "pooler_dropout",
    "hidden_dropout",
    "attention_dropout",
    "activation_dropout",
    "dropout",
    "dropout_rate",
    "seq_classif_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "summary_first_dropout",
    "summary_last_dropout",
)


@dataclass(frozen=True)
class Blueprint:
    """What is known of a backbone before its weights are loaded."""

    folder: Path
    gguf_file: str | None
    config: Any
    model_class: type[nn.Module]
    anatomy: Anatomy


def read_blueprint(folder: Path, labels: Sequence[str], dropout: float | None = None) -> Blueprint:
    """Read the configuration in `folder` for a sequence classification over `labels`.

    Raises:
        InputError: the folder holds no backbone.
        RefusedError: transformers has no sequence classification head for the architecture.
    """
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig

    gguf_file = next((path.name for path in sorted(folder.glob("*.gguf"))), None)
    if (folder / "config.json").is_file():
        gguf_file = None
    try:
        config = AutoConfig.from_pretrained(folder, **_gguf(gguf_file))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"backbone: the configuration can't be read: {_first_line(error)}") from None
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise RefusedError(
            f"backbone: transformers has no sequence classification head for '{config.model_type}' models; name another (pewb list backbones)"
        )
    model_class = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    if dropout is not None:
        for key in _DROPOUT_KEYS:
            if getattr(config, key, None) is not None:
                setattr(config, key, dropout)
    virtual = build_virtual(model_class, config)
    anatomy = anatomy_of(config, (name for name, _ in virtual.named_parameters()), virtual.base_model_prefix)
    return Blueprint(folder, gguf_file, config, model_class, anatomy)


def build_virtual(model_class: Any, config: Any) -> Any:
    """Return the architecture without weights, on the meta device."""
    with torch.device("meta"):
        return model_class(config)


def load_tokenizer(blueprint: Blueprint, padding_side: str) -> Any:
    """Return the backbone's tokenizer, its pad token and padding side made right for `padding_side`.

    Encoders and encoder-decoders keep their own side. A backbone without a pad token pads with its end token, and the
    configuration is told, because the heads of decoders look there (transformers issue 34055).

    Raises:
        InputError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(blueprint.folder, **_gguf(blueprint.gguf_file))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"backbone: no tokenizer can be read from its files: {_first_line(error)}") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise InputError(
            "backbone: its tokenizer has neither a pad token nor an end token; add one to its tokenizer_config.json"
        )
    blueprint.config.pad_token_id = tokenizer.pad_token_id
    anatomy = blueprint.anatomy
    tokenizer.padding_side = "right" if anatomy.is_encoder or anatomy.is_encoder_decoder else padding_side
    return tokenizer


def check_length(blueprint: Blueprint, max_tokens: int, num_virtual_tokens: int) -> None:
    """Refuse inputs that are longer than the backbone's position table.

    Raises:
        InputError: they are.
    """
    limit = longest_input(blueprint.config.to_dict())
    if limit is not None and max_tokens + num_virtual_tokens > limit:
        extra = f" and {num_virtual_tokens} virtual tokens" if num_virtual_tokens else ""
        raise InputError(
            f"training.max_tokens: {max_tokens}{extra} are more than the {limit} tokens that the backbone can read;"
            f" allowed: up to {limit - num_virtual_tokens}"
        )


def load_backbone(blueprint: Blueprint, quantization_config: Any, device: torch.device) -> Any:
    """Return the model with weights, a new head, and quantised layers where asked; unquantised tensors are float32.

    The head is drawn from torch's random state: seed it just before.

    Raises:
        InputError: the weights are missing, damaged or of another shape.
    """
    arguments: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True}
    load: Callable[..., Any] = blueprint.model_class.from_pretrained
    try:
        if blueprint.gguf_file:
            model = load(blueprint.folder, config=blueprint.config, gguf_file=blueprint.gguf_file, dtype=torch.float32)
            _forget_gguf(model)
            if quantization_config is not None:
                model = _requantized(model, load, quantization_config, arguments | {"device_map": {"": device}})
        elif quantization_config is not None:
            model = load(
                blueprint.folder,
                config=blueprint.config,
                quantization_config=quantization_config,
                device_map={"": device},
                **arguments,
            )
        else:
            model = load(blueprint.folder, config=blueprint.config, **arguments)
    except (OSError, ValueError, RuntimeError) as error:
        if "memory" in str(error).lower():
            raise
        raise InputError(f"backbone: the weights can't be loaded: {_first_line(error)}") from None
    keep_trainable_after_evaluation(model)
    return model


def _requantized(model: Any, load: Callable[..., Any], quantization_config: Any, arguments: dict[str, Any]) -> Any:
    """Return `model` quantised: bitsandbytes quantises while loading, so the weights go through a folder."""
    with TemporaryDirectory(prefix="pewb-") as folder:
        model.save_pretrained(folder)
        return load(folder, config=model.config, quantization_config=quantization_config, **arguments)


def _forget_gguf(model: Any) -> None:
    """Let a model read from GGUF be saved again: its weights are ordinary numbers now, but it still claims GGUF's."""
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False


def _gguf(name: str | None) -> dict[str, str]:
    return {"gguf_file": name} if name else {}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
