"""What a run is predicted to hold is what its own measurement counts."""

from dataclasses import replace

from pewb.planner.prediction import predict_memory
from pewb.planner.target import Target
from pewb.strategies.lora import Lora
from tests.planner.real_step import make_small_backbone
from tests.planner.test_exactness import question_of


def test_a_gpus_measurement_holds_the_workspaces_of_cublas(tmp_path):
    question = question_of(make_small_backbone("bert", tmp_path), "bert", Lora())
    bare = Target("cuda", "a GPU", has_bf16=True, capability=(9, 0))
    without, held = (
        predict_memory(question, one, 32, 8).memory.train for one in (bare, replace(bare, workspace_bytes=64 * 2**20))
    )
    assert held.peak_allocated_bytes - without.peak_allocated_bytes == 64 * 2**20
    assert held.peak_reserved_bytes - without.peak_reserved_bytes == 64 * 2**20
