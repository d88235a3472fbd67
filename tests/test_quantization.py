"""Quantised storage: the layers' types and the bytes they hold, not a flag."""

import pytest
import torch
from accelerate import Accelerator

from pewb import assembly
from pewb.device import Computing
from pewb.measurement.parameters import count_parameters
from pewb.quantization import is_quantized, num_weights
from pewb.recipe import Quantization, Training
from pewb.strategies.full import Full
from pewb.strategies.head_only import HeadOnly
from pewb.strategies.lora import Lora
from pewb.strategies.top_layers import TopLayers
from tests.tiny_backbones import CONFIGURATIONS

LABELS = ["negative", "positive"]


def load(folder, quantization, strategy=None, precision="fp32"):
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    computing = Computing(torch.device("cpu"), precision, types[precision])
    return assembly.load(
        "tiny", folder, LABELS, strategy or Lora(), quantization, Training(max_tokens=16), computing, 0
    )


@pytest.mark.parametrize("architecture", CONFIGURATIONS)
@pytest.mark.parametrize(
    ("kind", "layer", "bits"), [("int8", "Linear8bitLt", 8), ("nf4", "Linear4bit", 4), ("fp4", "Linear4bit", 4)]
)
def test_backbone_layers_are_quantised_and_nothing_else(architecture, kind, layer, bits, tiny_backbone):
    loaded = load(tiny_backbone(architecture), Quantization(kind=kind))
    sites = {name for names in loaded.anatomy.site_modules.values() for name in names}
    modules = dict(loaded.model.named_modules())
    for name in sites:
        module = modules[name]
        if architecture == "t5" and name.endswith(".wo"):
            continue  # transformers keeps T5's output projections in float32
        assert type(module).__name__ == layer, name
        assert is_quantized(module.weight)
        stored = module.weight.numel() * module.weight.element_size()
        assert stored == num_weights(module.weight) * bits // 8
        if bits == 4:
            assert module.weight.quant_type == kind
    stacks = tuple(stack.path + "." for stack in loaded.anatomy.stacks)
    for name, parameter in loaded.model.named_parameters():
        if is_quantized(parameter):
            assert name.startswith(stacks)
            assert type(modules[name.rpartition(".")[0]]).__name__ == layer
        else:
            assert name not in {f"{site}.weight" for site in sites} or name.endswith(".wo.weight")
    for name in loaded.anatomy.head:
        assert all(one.dtype == torch.float32 for one in modules[name].parameters())


def test_double_quantization_stores_smaller_scales(tiny_backbone):
    single = load(tiny_backbone("bert"), Quantization(kind="nf4"))
    double = load(tiny_backbone("bert"), Quantization(kind="nf4", double=True))
    name = single.anatomy.modules(["query"])[0]
    one, two = (loaded.model.get_submodule(name).weight.quant_state for loaded in (single, double))
    assert not one.nested
    assert two.nested
    assert two.absmax.dtype == torch.uint8


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_counts_are_what_the_weights_stand_for(kind, tiny_backbone):
    plain = load(tiny_backbone("bert"), Quantization())
    quantised = load(tiny_backbone("bert"), Quantization(kind=kind))
    assert (
        count_parameters(quantised.model, quantised.anatomy).total == count_parameters(plain.model, plain.anatomy).total
    )


def test_top_layers_stay_unquantised(tiny_backbone):
    loaded = load(tiny_backbone("bert"), Quantization(kind="nf4"), TopLayers(num_layers=1))
    kinds = {
        index: type(loaded.model.get_submodule(f"bert.encoder.layer.{index}.attention.self.query")).__name__
        for index in (0, 1)
    }
    assert kinds == {0: "Linear4bit", 1: "Linear"}


def test_casts_are_as_designed(tiny_backbone):
    """Under bf16 the frozen weights are bf16, what is trained is float32."""
    for strategy in (Lora(), HeadOnly(), TopLayers(num_layers=1)):
        loaded = load(tiny_backbone("bert"), Quantization(), strategy, "bf16")
        assembly.insert(loaded, False, 0, Accelerator(mixed_precision="bf16", cpu=True).autocast)
        trained = {one.dtype for one in loaded.model.parameters() if one.requires_grad}
        frozen = {
            one.dtype
            for name, one in loaded.model.named_parameters()
            if not one.requires_grad and ".original_module." not in name
        }
        assert trained == {torch.float32}
        assert frozen == {torch.bfloat16}


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama", "t5"])
def test_what_is_trained_starts_from_unrounded_weights(architecture, tiny_backbone):
    """Full tuning under bf16 begins with the file's own float32 numbers, embeddings and norms included."""
    exact = load(tiny_backbone(architecture), Quantization(), Full()).model.state_dict()
    loaded = load(tiny_backbone(architecture), Quantization(), Full(), "bf16")
    assembly.insert(loaded, False, 0)
    torch.testing.assert_close(dict(loaded.model.state_dict()), dict(exact), rtol=0, atol=0)


def test_same_seed_gives_every_strategy_the_same_head(tiny_backbone):
    heads = [
        load(tiny_backbone("bert"), Quantization(kind=kind), strategy).model.classifier.weight
        for kind, strategy in (("none", Lora()), ("nf4", HeadOnly()), ("none", TopLayers(num_layers=1)))
    ]
    assert torch.equal(heads[0], heads[1])
    assert torch.equal(heads[0], heads[2])
