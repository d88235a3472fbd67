"""Counts that are published facts, and memory that can be computed by hand."""

import gc

import pytest
import torch

from pewb.anatomy import anatomy_of
from pewb.errors import OutOfMemoryError
from pewb.measurement.flops import FlopCounting, StepFlops, flops_of
from pewb.measurement.memory import LiveTensors, PhaseMemory, is_out_of_memory, tensors_of
from pewb.measurement.parameters import count_parameters
from pewb.strategies.lora import Lora

MIB = 2**20


def test_roberta_base_with_lora_has_the_published_counts():
    """124,942,082 parameters, of which 887,042 are trained and 592,130 are the head (built from the config alone)."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, num_labels=2)
    with torch.device("meta"):
        model = RobertaForSequenceClassification(config)
    assert sum(one.numel() for one in model.parameters()) == 124_647_170
    anatomy = anatomy_of(config, [name for name, _ in model.named_parameters()], model.base_model_prefix)
    adapted = Lora(rank=8, targets=["query", "value"]).apply(model, anatomy)
    counted = count_parameters(adapted, anatomy)
    assert (counted.total, counted.trainable, counted.head) == (124_942_082, 887_042, 592_130)


def test_live_tensors_are_counted_by_storage():
    kept = torch.empty(MIB, dtype=torch.uint8)
    with LiveTensors([kept]) as live:
        other = torch.zeros(2 * MIB, dtype=torch.uint8)
        view = other.view(2, -1)[0]
        assert live.live_bytes == 3 * MIB
        del other
        assert live.live_bytes == 3 * MIB  # the view still holds it
        del view
        gc.collect()
        assert live.live_bytes == MIB
    assert live.peak_bytes == 3 * MIB


def test_live_tensors_follow_a_backward_pass():
    """y = (x w)²: at the peak x, w, their product, its square's gradient and w's gradient are alive."""
    width = 512
    weights = torch.randn(width, width, requires_grad=True)
    inputs = torch.randn(width, width)
    with LiveTensors([weights, inputs]) as live:
        (inputs @ weights).square().sum().backward()
    one = 4 * width * width
    assert 4 * one <= live.peak_bytes <= 6 * one + 1000
    assert live.live_bytes == pytest.approx(3 * one, abs=1000)


def test_a_limit_is_kept():
    with pytest.raises(OutOfMemoryError, match="limit"), LiveTensors([], limit_bytes=1000):
        torch.zeros(1001, dtype=torch.uint8)


def test_phase_memory_of_a_cpu_has_no_reserved_bytes():
    memory = PhaseMemory(torch.device("cpu"))
    with memory.measured(), memory.tracked(lambda: []):
        torch.zeros(MIB)
    assert memory.peak.peak_allocated_bytes == 4 * MIB
    assert memory.peak.peak_reserved_bytes is None
    assert memory.peak.peak_resident_bytes > 10 * MIB


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("shape mismatch"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) == expected


def test_tensors_of_a_quantised_model_hold_its_scales(tiny_backbone):
    from tests.strategies.test_conformance import load, method_called

    model = load(tiny_backbone("bert"), method_called("head_only"), "nf4").model
    counted = sum(one.numel() * one.element_size() for one in tensors_of(model))
    bare = sum(one.numel() * one.element_size() for one in model.parameters())
    assert counted > bare


def test_heads_that_share_keys_take_as_many_operations_as_heads_with_their_own():
    attend = torch.ops.aten._scaled_dot_product_flash_attention.default
    query = torch.empty(2, 8, 16, 32, dtype=torch.bfloat16, device="meta")
    shared, own = (torch.empty(2, heads, 16, 32, dtype=torch.bfloat16, device="meta") for heads in (2, 8))
    operations = [flops_of(attend, (query, one, one), {}, None) for one in (shared, own)]
    assert operations == [4 * 2 * 8 * 16 * 16 * 32] * 2


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_layers_take_as_many_operations_as_others(quantization, is_training, tiny_backbone):
    from tests.strategies.test_peft_strategies import batch, inserted

    counted = {}
    for kind in ("none", quantization):
        made = inserted(tiny_backbone("bert"), Lora(), kind)
        counts = StepFlops()
        with FlopCounting(counts), torch.set_grad_enabled(is_training):
            made.model.train(is_training)(**batch(made)[0])
        counted[kind] = counts.linear
    assert counted[quantization] == counted["none"] > 0
