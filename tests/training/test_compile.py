"""Compiled layers train as the others do."""

import shutil

import pytest
import torch

from pewb.errors import RefusedError
from pewb.kernels.compiled import compile_layers
from pewb.recipe import Training
from pewb.strategies.lora import Lora
from tests.training.test_parity import assembled, fit

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles with a C++ compiler")


@pytest.mark.parametrize(
    ("architecture", "backend"),
    [
        ("bert", "aot_eager"),
        pytest.param("llama", "aot_eager", marks=pytest.mark.slow),
        pytest.param("bert", "inductor", marks=[pytest.mark.slow, needs_compiler]),
    ],
)
def test_losses_are_those_of_the_plain_way(architecture, backend, tiny_backbone):
    """In float32, over the steps that are followed (which are not compiled) and those that are not."""
    curves = []
    for compiled in (False, True):
        training = Training(
            max_tokens=16, learning_rate=1e-2, batch_size=4, precision="fp32", dropout=0.0, compile=compiled
        )
        made, data = assembled(tiny_backbone(architecture), Lora(rank=2), training)
        if compiled:
            compile_layers(made.model, backend)
        torch._dynamo.utils.counters.clear()
        trained = fit(made, data, training)
        curves.append([loss for _, loss in trained.loss])
        was_compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
        assert was_compiled == compiled
    assert len(curves[0]) > 2
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)


def test_a_model_without_layers_is_refused():
    head = torch.nn.Linear(2, 2)
    head.config = type("Config", (), {"model_type": "linear"})
    with pytest.raises(RefusedError, match=r"training.compile: .* leave compile out"):
        compile_layers(head)
