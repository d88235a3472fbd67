"""How long the planner takes to simulate large models: built, one training step of LoRA in nf4, one evaluation.

    python -m benchmarks.planner_speed [BACKBONE …]

Each is done once to warm up on a small model and then three times; the least and the most are printed, in seconds after
imports, with the memory that was found.
"""

from __future__ import annotations

import sys
import time

from pewb.assets import architecture
from pewb.planner.gpus import gpu
from pewb.planner.simulation import Question, simulated
from pewb.planner.target import gpu_target
from pewb.quiet import quieten_libraries
from pewb.recipe import Quantization, Training
from pewb.reporting import Silent
from pewb.strategies import strategies
from pewb.tasks import TASKS


def seconds(name: str) -> tuple[float, int]:
    """Return how long one simulation of the backbone takes, and the live bytes of its training."""
    training = Training(batch_size=4, micro_batch_size=4, max_tokens=512, learning_rate=1e-4)
    strategy, storage = strategies()["lora"](), Quantization(kind="nf4")
    config = architecture(name, Silent())
    started = time.perf_counter()
    question = Question(name, config, TASKS["causal_lm"], (), strategy, storage, training)
    with simulated(question, gpu_target(gpu("h100"))) as simulation:
        phase, _ = simulation.train(4)
        simulation.evaluate(4)
    return time.perf_counter() - started, phase.allocated_bytes


def main() -> None:
    """Print a line for each backbone."""
    quieten_libraries()
    seconds("smollm2-135m")
    for name in sys.argv[1:] or ["llama-3.1-8b", "llama-3.1-70b"]:
        taken = [seconds(name) for _ in range(3)]
        times = sorted(one for one, _ in taken)
        print(f"{name}: {times[0]:.1f} to {times[-1]:.1f} s, {taken[0][1] / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
