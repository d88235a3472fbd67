"""Backbones: a pre-trained transformer with a new task head and its tokenizer, loaded from verified local files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from pewb.anatomy import Anatomy, anatomy_of, longest_input
from pewb.errors import InputError, RefusedError, nearest
from pewb.quantization import keep_trainable_after_evaluation, quantize_virtually
from pewb.tasks import ModelHead, TaskFamily, TextClassification
from pewb.tasks.model_heads import CAUSAL_LM

_BAD_FILES = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    ImportError,
    RuntimeError,
    StrictDataclassError,
    SafetensorError,
)
"""What transformers raises for files that it can't make sense of."""


@dataclass(frozen=True)
class Blueprint:
    """What is known of a backbone before its weights are loaded."""

    folder: Path | None
    """Where the weights are; None where there are none, and the model is virtual."""
    gguf_file: str | None
    config: Any
    model_class: type[nn.Module]
    anatomy: Anatomy


def read_blueprint(
    source: Path | Mapping[str, Any],
    labels: Sequence[str],
    dropout: float | None = None,
    task: TaskFamily | None = None,
) -> Blueprint:
    """Read the configuration in `source` for `task` (left out: a text classification); `labels` are its classes.

    `source` is a folder, or the content of a `config.json` where no weights are needed.

    Raises:
        InputError: there is no such architecture, or the folder holds no backbone.
        RefusedError: transformers has no such head for the architecture.
    """
    folder = source if isinstance(source, Path) else None
    where = f"in {folder}" if folder else "given"
    try:
        gguf_file, config = _configuration(source)
    except _BAD_FILES as error:
        raise InputError(
            f"backbone: the configuration {where} can't be read: {_in_one_line(error)};"
            " mend it, or name another backbone (pewb list backbones)"
        ) from None
    task = task or TextClassification()
    model_class = _model_class(config, task.model_head)
    if task.model_head.is_new:
        outputs = task.outputs(labels)
        config.num_labels = len(outputs)
        config.id2label = dict(enumerate(outputs))
        config.label2id = {label: number for number, label in enumerate(outputs)}
        config.problem_type = _PROBLEM_TYPES.get(task.form)
    if dropout is not None:
        _set_dropout(config, dropout)
    try:
        virtual = build_virtual(model_class, config)
    except _BAD_FILES as error:
        raise InputError(
            f"backbone: no model can be built from the configuration {where}: {_in_one_line(error)};"
            " mend it, or name another backbone (pewb list backbones)"
        ) from None
    base = virtual.base_model_prefix if hasattr(virtual, virtual.base_model_prefix) else ""
    names = (name for name, _ in virtual.named_parameters())
    anatomy = anatomy_of(config, names, base, task.model_head.peft_task_type)
    forwards = (virtual.forward, virtual.get_submodule(anatomy.base).forward)
    takes_past = any("past_key_values" in signature(forward).parameters for forward in forwards)
    has_conv1d = any(isinstance(module, Conv1D) for module in virtual.modules())
    output = _vocabulary_projections(virtual) if anatomy.is_language_model else ()
    anatomy = replace(anatomy, takes_past=takes_past, has_conv1d=has_conv1d, output=output)
    return Blueprint(folder, gguf_file, config, model_class, anatomy)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of the `config.json` in `folder`, or what a GGUF file says in its place."""
    content: dict[str, Any] = _configuration(folder)[1].to_dict()
    return content


def _configuration(source: Path | Mapping[str, Any]) -> tuple[str | None, Any]:
    """Return the name of the GGUF file if the configuration is inside one, and transformers' configuration."""
    from transformers import CONFIG_MAPPING, AutoConfig

    if not isinstance(source, Path):
        content = dict(source)
        kind, known = str(content.pop("model_type", "")), list(CONFIG_MAPPING.keys())
        if kind not in known:
            told = (
                f"transformers knows no model_type '{kind}'{nearest(kind, known)}" if kind else "it names no model_type"
            )
            raise InputError(f"backbone: the configuration can't be read: {told}")
        return None, AutoConfig.for_model(kind, **content)
    gguf_file = next((path.name for path in sorted(source.glob("*.gguf"))), None)
    if (source / "config.json").is_file():
        gguf_file = None
    return gguf_file, AutoConfig.from_pretrained(source, trust_remote_code=False, **_gguf(gguf_file))


_PROBLEM_TYPES = {
    "text_classification": "single_label_classification",
    "multi_label": "multi_label_classification",
    "text_regression": "regression",
}
"""What transformers calls them, whose own losses they choose: a saved model is then trained further as it was."""


def _model_class(config: Any, head: ModelHead) -> Any:
    """Return transformers' class for the architecture with `head`.

    Raises:
        RefusedError: there is none, or one that would see what it is to predict.
    """
    import transformers

    classes = getattr(transformers, head.mapping)
    if type(config) not in classes:
        raise RefusedError(
            f"backbone: transformers has no {head.told_as} for '{config.model_type}' models; name another (pewb list backbones)"
        )
    if head is CAUSAL_LM:
        if getattr(config, "is_encoder_decoder", False):
            raise RefusedError(
                f"backbone: '{config.model_type}' models are encoder-decoders; their task is kind = \"seq2seq\""
            )
        is_encoder = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING or config.model_type == "bert-generation"
        if is_encoder and not getattr(config, "is_decoder", False):
            raise RefusedError(
                f"backbone: this '{config.model_type}' model reads its text in both directions, so it would see the tokens"
                " that it is to predict; name a decoder (pewb list backbones)"
            )
    return classes[type(config)]


def _vocabulary_projections(virtual: Any) -> tuple[str, ...]:
    output = virtual.get_output_embeddings()
    return tuple(name for name, module in virtual.named_modules() if module is output)


def _set_dropout(config: Any, probability: float) -> None:
    """Write `probability` over every dropout in `config` and its parts, whatever the architecture calls it."""
    for key, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            _set_dropout(value, probability)
        elif (
            ("dropout" in key or key.endswith("pdrop"))
            and isinstance(value, (int, float))
            and not isinstance(value, bool)
        ):
            setattr(config, key, probability)


def build_virtual(model_class: Any, config: Any) -> Any:
    """Return the architecture without weights, on the meta device."""
    with torch.device("meta"):
        return model_class(config)


def load_tokenizer(blueprint: Blueprint, padding_side: str) -> Any:
    """Return the backbone's tokenizer, its pad token and padding side made right for `padding_side`.

    Encoders, encoder-decoders and models whose head reads every token are padded on the right. A backbone without a pad token pads with its end token, and the
    configuration is told, because the heads of decoders look there (transformers issue 34055).

    Raises:
        InputError: there is none.
    """
    from transformers import AutoTokenizer

    way_out = "put the files in its folder that its tokenizer's save_pretrained writes"
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            blueprint.folder, trust_remote_code=False, **_gguf(blueprint.gguf_file)
        )
    except _BAD_FILES as error:
        raise InputError(
            f"backbone: no tokenizer can be read from its files: {_in_one_line(error)}; {way_out}"
        ) from None
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise InputError(f"backbone: {blueprint.folder} has no tokenizer; {way_out}")
    text_config = blueprint.config.get_text_config()
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= text_config.vocab_size:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise InputError(
            "backbone: its tokenizer has neither a pad token nor an end token; add one to its tokenizer_config.json"
        )
    blueprint.config.pad_token_id = text_config.pad_token_id = tokenizer.pad_token_id
    anatomy = blueprint.anatomy
    reads_last_token = not (anatomy.is_encoder or anatomy.is_encoder_decoder or anatomy.reads_every_token)
    tokenizer.padding_side = padding_side if reads_last_token else "right"
    return tokenizer


def assume_padding(blueprint: Blueprint) -> None:
    """Let a virtual model, which has no tokenizer, know a pad token, as `load_tokenizer` would tell it."""
    text_config = blueprint.config.get_text_config()
    if text_config.pad_token_id is None:
        blueprint.config.pad_token_id = text_config.pad_token_id = 0


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
    quantized: dict[str, Any] = {"quantization_config": quantization_config, "device_map": {"": device}}
    folder = blueprint.folder
    assert folder is not None
    try:
        if blueprint.gguf_file:
            model = _checked_load(blueprint, folder, gguf_file=blueprint.gguf_file)
            _forget_gguf(model)
            if quantization_config is not None:
                model = _requantized(model, blueprint, quantized)
        else:
            options = {} if quantization_config is None else quantized
            model = _checked_load(blueprint, folder, use_safetensors=True, **options)
    except _BAD_FILES as error:
        if "memory" in str(error).lower():
            raise
        raise InputError(
            f"backbone: the weights in {folder} can't be loaded: {_in_one_line(error)};"
            " fetch them again, or name another backbone (pewb list backbones)"
        ) from None
    keep_trainable_after_evaluation(model)
    return model


def build_backbone(blueprint: Blueprint, quantization_config: Any) -> Any:
    """Return the model without numbers, on the meta device, in the types in which `load_backbone` would give it."""
    with torch.device("meta"), no_init_weights():
        model: Any = blueprint.model_class(blueprint.config)
    model.tie_weights()
    model.eval()  # as transformers loads it
    if quantization_config is not None:
        quantize_virtually(model, quantization_config)
    keep_trainable_after_evaluation(model)
    return model


def _checked_load(blueprint: Blueprint, folder: Path | str, **options: Any) -> Any:
    """Load the model from `folder`, and see that all but the head got its weights: transformers would draw new ones.

    Raises:
        InputError: the files lack a layer's weights, or have another shape.
    """
    load: Callable[..., Any] = blueprint.model_class.from_pretrained
    model, report = load(
        folder,
        config=blueprint.config,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **options,
    )
    anatomy = blueprint.anatomy
    head = tuple(name + "." for name in anatomy.head)
    drawn = (*head, f"{anatomy.base}.pooler.".lstrip("."))  # a pooler that the head does not read may well be missing
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(drawn))
    other = sorted(name for name, *_ in report["mismatched_keys"] if not name.startswith(head))
    if missing or other:
        fault = f"lack '{missing[0]}'" if missing else f"have '{other[0]}' in another shape"
        raise InputError(
            f"backbone: the weights in {folder} {fault} ({len(missing) or len(other)} such tensors), so they are not of"
            " the model that its config.json describes; name a folder whose files belong together"
        )
    return model


def _requantized(model: Any, blueprint: Blueprint, options: dict[str, Any]) -> Any:
    """Return `model` quantised: bitsandbytes quantises while loading, so the weights go through a folder."""
    with TemporaryDirectory(prefix="pewb-") as folder:
        model.save_pretrained(folder)
        return _checked_load(blueprint, folder, use_safetensors=True, **options)


def _forget_gguf(model: Any) -> None:
    """Let a model read from GGUF be saved again: its weights are ordinary numbers now, but it still claims GGUF's."""
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False


def _gguf(name: str | None) -> dict[str, str]:
    return {"gguf_file": name} if name else {}


def _in_one_line(error: BaseException) -> str:
    """Return what `error` says, in one line; a bare key says nothing, so its type goes before it."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__} {text}" if isinstance(error, KeyError) or not text else text[:300]
