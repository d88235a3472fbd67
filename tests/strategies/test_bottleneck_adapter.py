"""Where bottleneck adapters are, what they read, and what `mam` makes of them."""

import pytest
import torch

from pewb.strategies.bottleneck_adapter import CHILD, BottleneckAdapter
from pewb.strategies.mam import Mam
from tests.strategies.test_biases_and_norms import inserted
from tests.strategies.test_conformance import FAMILIES, backward, batch

ENTRANCES_AND_EXITS = {
    "bert": ("intermediate.dense", "output.dense"),
    "roberta": ("intermediate.dense", "output.dense"),
    "deberta-v2": ("intermediate.dense", "output.dense"),
    "llama": ("mlp.up_proj", "mlp.down_proj"),
    "gpt2": ("mlp.c_fc", "mlp.c_proj"),
    "t5": ("DenseReluDense.wi", "DenseReluDense.wo"),
}


@pytest.mark.parametrize("architecture", FAMILIES)
def test_the_feed_forwards_are_found_in_every_layer(architecture, tiny_backbone):
    anatomy = inserted(tiny_backbone(architecture), BottleneckAdapter()).anatomy
    pairs = anatomy.feed_forwards()
    entrance, exit_ = ENTRANCES_AND_EXITS[architecture]
    assert all(one.endswith("." + entrance) and other.endswith("." + exit_) for one, other in pairs)
    assert all(one.removesuffix(entrance) == other.removesuffix(exit_) for one, other in pairs)
    assert len(pairs) == sum(stack.num_layers for stack in anatomy.stacks)


@pytest.mark.parametrize(("placement", "sites"), [("houlsby", 2), ("pfeiffer", 1), ("parallel", 1)])
def test_each_placement_has_its_adapters(placement, sites, tiny_backbone):
    model = inserted(tiny_backbone("bert"), BottleneckAdapter(placement=placement, bottleneck=8)).model
    places = [name.removesuffix("." + CHILD) for name, _ in model.named_modules() if name.endswith(CHILD)]
    assert len(places) == 2 * sites
    after_attention = [name for name in places if "attention" in name]
    assert len(after_attention) == (2 if placement == "houlsby" else 0)


def stirred(adapter) -> None:
    """Give `adapter` weights that matter: it starts as nothing."""
    with torch.no_grad():
        adapter[2].weight.normal_()
        adapter[2].bias.normal_()


@pytest.mark.parametrize(
    ("placement", "scale", "factor"), [("pfeiffer", None, 1), ("parallel", None, 4), ("parallel", 2.0, 2)]
)
def test_the_equation_by_hand(placement, scale, factor, tiny_backbone):
    """BERT's layer, written out: the residual connection and the norm come after the adapter's sum."""
    strategy = BottleneckAdapter(placement=placement, bottleneck=8, scale=scale)
    layer = inserted(tiny_backbone("bert"), strategy).model.eval().get_submodule("bert.encoder.layer.1")
    dense, adapter = layer.output.dense, layer.output.dense.get_submodule(CHILD)
    stirred(adapter)
    hidden = torch.randn(2, 5, 32)
    with torch.no_grad():
        inner = torch.nn.functional.gelu(layer.intermediate.dense(hidden))
        output = torch.nn.functional.linear(inner, dense.weight, dense.bias)
        read = hidden if placement == "parallel" else output
        expected = layer.output.LayerNorm(output + factor * adapter(read) + hidden)
        torch.testing.assert_close(layer.feed_forward_chunk(hidden), expected)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "t5"])
def test_parallel_adapters_read_the_feed_forwards_input(architecture, tiny_backbone):
    strategy = BottleneckAdapter(placement="parallel", bottleneck=8)
    assembled = inserted(tiny_backbone(architecture), strategy)
    _, exit_ = assembled.anatomy.feed_forwards()[-1]
    block = assembled.model.eval().get_submodule(exit_.rpartition(".")[0])
    adapter = assembled.model.get_submodule(exit_).get_submodule(CHILD)
    hidden = torch.randn(2, 5, 32)
    with torch.no_grad():
        before = block(hidden)
        stirred(adapter)
        torch.testing.assert_close(block(hidden), before + 4 * adapter(hidden), rtol=1e-4, atol=1e-5)


def test_mam_is_a_prefix_and_parallel_adapters(tiny_backbone):
    strategy = Mam(num_virtual_tokens=4, bottleneck=8)
    assembled = inserted(tiny_backbone("bert"), strategy)
    trained = {name: one for name, one in assembled.model.named_parameters() if one.requires_grad}
    prefix = [one for name, one in trained.items() if "prompt_encoder" in name]
    adapters = [one for name, one in trained.items() if CHILD in name]
    assert sum(one.numel() for one in prefix) == 4 * 2 * 2 * 32
    assert sum(one.numel() for one in adapters) == 2 * (2 * 32 * 8 + 8 + 32)
    assert len(trained) == len(prefix) + len(adapters) + 4  # the head's pooler and classifier
    inputs, labels = batch(assembled)
    backward(assembled.model, inputs, labels)
    assert all(one.grad is not None for one in trained.values())


def test_settings_are_told():
    assert BottleneckAdapter().describe() == "width 64"
    assert BottleneckAdapter(placement="parallel", scale=2.0).describe() == "parallel width 64 s=2"
    assert Mam().describe() == "30 tokens, width 64"
