"""BitFit and layer norm tuning: exactly the biases, exactly the norms, also where the layers around them are quantised."""

import re

import pytest
import torch
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from pewb import assembly
from pewb.device import Computing
from pewb.errors import RefusedError
from pewb.recipe import Quantization, Training
from pewb.strategies import Strategy
from pewb.strategies.bitfit import BIAS, BitFit
from pewb.strategies.layer_norm import LayerNorm
from tests.strategies.test_conformance import FAMILIES, LABELS, backward, batch
from tests.test_anatomy import anatomy, small


def inserted(folder, strategy: Strategy, quantization: str = "none", precision: str = "fp32") -> assembly.Assembly:
    compute_type = torch.bfloat16 if precision == "bf16" else torch.float32
    assembled = assembly.load(
        "tiny",
        folder,
        LABELS,
        strategy,
        Quantization(kind=quantization),
        Training(max_tokens=16, dropout=0.0, learning_rate=1e-2),
        Computing(torch.device("cpu"), precision, compute_type),
        seed=0,
    )
    assembly.insert(assembled, False, 0)
    return assembled


def trained_in_backbone(assembled: assembly.Assembly) -> set[str]:
    head = tuple(part + "." for part in assembled.anatomy.head)
    names = {name for name, one in assembled.model.named_parameters() if one.requires_grad}
    return {name for name in names if not name.startswith(head)}


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta-v2", "gpt2"])
def test_bitfit_trains_every_bias_and_nothing_else(architecture, tiny_backbone):
    assembled = inserted(tiny_backbone(architecture), BitFit())
    backbone = assembled.anatomy.base + "."
    biases = {name for name, _ in assembled.model.named_parameters() if name.endswith(".bias")}
    head = tuple(part + "." for part in assembled.anatomy.head)
    expected = {name for name in biases if name.startswith(backbone) and not name.startswith(head)}
    assert trained_in_backbone(assembled) == expected


@pytest.mark.parametrize("architecture", FAMILIES)
def test_layer_norm_trains_every_norm_and_nothing_else(architecture, tiny_backbone):
    assembled = inserted(tiny_backbone(architecture), LayerNorm())
    norms = {name for name, module in assembled.model.named_modules() if "Norm" in type(module).__name__}
    assert norms == set(assembled.anatomy.norms)
    expected = {
        f"{norm}.{name}" for norm in norms for name, _ in assembled.model.get_submodule(norm).named_parameters()
    }
    assert trained_in_backbone(assembled) == expected


REFUSED = {"ctrl", "funnel", "jetmoe", "xlnet"}
"""Architectures whose layers pewb can't tell."""
NEVER_SMALL = {
    "cohere_compass_text",
    "esm",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "jamba",
    "layoutlmv2",
    "ministral",
    "nemotron",
    "perceiver",
    "reformer",
}
"""Architectures that transformers can't build with this few units, or without another library."""

NOT_BUILT = (AttributeError, ImportError, KeyError, TypeError, ValueError)


def small_anatomy(model_type):
    config = small(model_type)
    with torch.device("meta"):
        model = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)](config)
    return model, anatomy(model)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
def test_the_norms_of_any_architecture_are_found(model_type):
    if model_type in REFUSED | NEVER_SMALL:
        with pytest.raises(RefusedError if model_type in REFUSED else NOT_BUILT):
            small_anatomy(model_type)
        return
    model, found = small_anatomy(model_type)
    head = tuple(part + "." for part in found.head)
    norms = {
        name
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        and list(module.parameters(recurse=False))
        and name.startswith(found.base + ".")
        and not name.startswith(head)
        and not re.search(r"\.(vision|visual|audio)", name)
    }
    assert set(found.norms) == norms


def test_layer_norm_is_pefts_ln_tuning(tiny_backbone):
    """PEFT, which trains a copy beside each norm, gives the same 20 losses."""
    from peft import LNTuningConfig, get_peft_model

    ours = inserted(tiny_backbone("bert"), LayerNorm())
    theirs = inserted(tiny_backbone("bert"), LayerNorm())
    config = LNTuningConfig(
        task_type="SEQ_CLS",
        target_modules=list(theirs.anatomy.norms),
        modules_to_save=list(theirs.anatomy.head),
    )
    theirs.model = get_peft_model(theirs.model, config)
    assert losses(ours) == losses(theirs)


def losses(assembled: assembly.Assembly) -> list[float]:
    inputs, labels = batch(assembled)
    optimizer = torch.optim.AdamW([one for one in assembled.model.parameters() if one.requires_grad], 1e-2)
    found = []
    for step in range(20):
        half = slice(step % 2, None, 2)
        part = {name: tensor[half] for name, tensor in inputs.items()}
        loss = torch.nn.functional.cross_entropy(assembled.model(**part).logits, labels[half])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
@pytest.mark.parametrize("strategy", [BitFit(), LayerNorm()], ids=lambda strategy: strategy.kind)
def test_what_is_trained_stays_float32_in_bf16(strategy, quantization, tiny_backbone):
    assembled = inserted(tiny_backbone("bert"), strategy, quantization, "bf16")
    inputs, labels = batch(assembled)
    with torch.autocast("cpu", torch.bfloat16):
        backward(assembled.model, inputs, labels)
    for name, parameter in assembled.model.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == parameter.grad.dtype == torch.float32, name


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_bitsandbytes_would_round_the_biases(quantization, tiny_backbone):
    """Why biases are taken out of quantised layers: left inside, the first forward makes them bfloat16."""
    assembled = inserted(tiny_backbone("bert"), BitFit(), quantization, "bf16")
    layer = assembled.model.get_submodule("bert.encoder.layer.0.intermediate.dense")
    assert layer.get_parameter(BIAS).dtype == torch.float32
    layer.bias = torch.nn.Parameter(layer.get_parameter(BIAS).detach().clone())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assembled.model(**batch(assembled)[0])
    assert layer.get_parameter(BIAS).dtype == torch.float32
    assert layer.bias.dtype == torch.bfloat16
