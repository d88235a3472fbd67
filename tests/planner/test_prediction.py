"""What a run is predicted to hold is what its own measurement counts."""

from dataclasses import replace

import torch

from pewb.measurement.memory import LiveTensors
from pewb.planner.prediction import LargestBatch, predict_memory
from pewb.planner.target import Target
from pewb.planner.virtual_device import META, VirtualDevice
from pewb.strategies.lora import Lora
from tests.planner.real_step import make_small_backbone
from tests.planner.test_exactness import question_of


def test_a_gpus_measurement_holds_the_workspaces_of_cublas(tmp_path):
    question = question_of(make_small_backbone("bert", tmp_path), "bert", Lora())
    batch = LargestBatch(8, 32, None)
    bare = Target("cuda", "a GPU", has_bf16=True, capability=(9, 0))
    without, held = (
        predict_memory(question, one, [batch], batch).memory.train
        for one in (bare, replace(bare, workspace_bytes=64 * 2**20))
    )
    assert held.peak_allocated_bytes - without.peak_allocated_bytes == 64 * 2**20
    assert held.peak_reserved_bytes - without.peak_reserved_bytes == 64 * 2**20


def test_a_product_in_int8_holds_its_32_bit_integers_on_a_gpu():
    import bitsandbytes  # noqa: F401  # it defines the operation

    peaks = {}
    for kind in ("cpu", "cuda"):
        inputs, weight = (torch.empty(rows, 32, dtype=torch.int8, device=META) for rows in (64, 16))
        scales = [torch.empty(rows, device=META) for rows in (64, 16)]
        with VirtualDevice(kind, (9, 0)).active(), LiveTensors([]) as live:
            torch.ops.bitsandbytes.int8_scaled_mm.default(inputs, weight, *scales, dtype=torch.bfloat16)
        peaks[kind] = live.peak_bytes
    assert peaks == {"cpu": 64 * 16 * 2, "cuda": 64 * 16 * (4 + 2 + 2)}


def test_of_several_batches_the_one_that_takes_the_most_counts(tmp_path):
    question = question_of(make_small_backbone("bert", tmp_path), "bert", Lora())
    target = Target("cpu", "this CPU", has_bf16=True)
    batches = [LargestBatch(8, 48, None), LargestBatch(8, 32, None)]
    whole, first, second = (
        predict_memory(question, target, some, batches[0]).memory.train.peak_allocated_bytes
        for some in (batches, batches[:1], batches[1:])
    )
    assert whole == first > second
