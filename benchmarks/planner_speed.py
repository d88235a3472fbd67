"""How long the planner takes on large models: one simulation, and a whole plan with its search.

    python -m benchmarks.planner_speed

A simulation builds the model and takes a training step of LoRA in nf4 and an evaluation; it is done three times. A plan is
QLoRA in all linear layers with gradient checkpointing (`recipes/qlora_llama3_8b.toml`), with the search for the largest
micro-batch and evaluation batch that fit; it is made once, with an empty cache. All is warmed up on a small model; the
least and the most are printed, in seconds after imports, with the memory that was found.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from pewb.assets import architecture
from pewb.planner.deep import simulation_of
from pewb.planner.gpus import gpu
from pewb.planner.plan import plan
from pewb.planner.simulation import Question
from pewb.planner.target import choose_target, gpu_target
from pewb.quiet import quieten_libraries
from pewb.recipe import DeviceSection, Quantization, Training, load_recipe
from pewb.reporting import Silent
from pewb.strategies import strategies
from pewb.tasks import TASKS

RECIPE = Path(__file__).parents[1] / "recipes" / "qlora_llama3_8b.toml"


def seconds(name: str) -> tuple[float, int]:
    """Return how long one simulation of the backbone takes, and the live bytes of its training."""
    training = Training(batch_size=4, micro_batch_size=4, max_tokens=512, learning_rate=1e-4)
    strategy, storage = strategies()["lora"](), Quantization(kind="nf4")
    config = architecture(name, Silent())
    started = time.perf_counter()
    question = Question(name, config, TASKS["causal_lm"](), (), strategy, storage, training)
    simulation = simulation_of(question, gpu_target(gpu("h100")))
    phase, _ = simulation.train(4)
    simulation.evaluate(4)
    return time.perf_counter() - started, phase.allocated_bytes


def plan_seconds(name: str, memory: str) -> str:
    """Return what a plan of the shipped recipe says for the backbone, and how long it took."""
    loaded = load_recipe(RECIPE, [f"backbone={name}"])
    [found] = plan(loaded, choose_target(DeviceSection(), memory=memory))
    assert found.estimate is not None
    needed = found.estimate.train.needed_bytes / 2**30
    return f"{found.seconds:.1f} s, micro-batch {found.estimate.largest_micro_batch}, {needed:.1f} GiB"


def main() -> None:
    """Print a line for each simulation and each plan."""
    quieten_libraries()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEWB_CACHE"] = folder
        seconds("smollm2-135m")
        for name in ("llama-3.1-8b", "llama-3.1-70b"):
            taken = [seconds(name) for _ in range(3)]
            times = sorted(one for one, _ in taken)
            print(f"{name}, simulated: {times[0]:.1f} to {times[-1]:.1f} s, {taken[0][1] / 2**30:.1f} GiB")
        for name, memory in (("llama-3.1-8b", "12GiB"), ("llama-3.1-70b", "48GiB")):
            print(f"{name}, planned for {memory}: {plan_seconds(name, memory)}")


if __name__ == "__main__":
    main()
