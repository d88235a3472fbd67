"""How fast runs train, beside what a user would write instead: Trainer with PEFT at its best (`benchmarks/rival.py`).

    python -m benchmarks.training_speed [--steps N] [--rounds N] [STRATEGY ...]

minilm-l6 on movie-snippets in bfloat16, batches of 32, equal dropout, learning rate and schedule. The rival first tries both of
transformers' attentions and keeps the faster. Then they take turns, each in a process of its own: rival, pewb, rival, pewb.
Samples a second are those of the training loop; pewb's seconds hold the steps whose memory it follows. The ratio is of
neighbours, the least and the most are printed. Accuracies are on the test split after so many steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pewb.recipe import load_recipe
from pewb.record import read_record
from pewb.reporting import Silent
from pewb.runner.prepare import prepare

RECIPE = Path(__file__).parents[1] / "recipes" / "lora_sst2.toml"
RATES = {"lora": 1e-3, "full": 5e-5, "bitfit": 1e-3}


def job_of(strategy: str, steps: int, folder: Path) -> Any:
    """Return the run of `strategy` as `pewb run` gives it to its process."""
    overrides = [
        "task=movie-snippets",
        f"strategy={strategy}",
        f"training.learning_rate={RATES[strategy]}",
        "training.precision=bf16",
        "training.dropout=0.1",
        f"training.max_steps={steps}",
    ]
    [row] = prepare(load_recipe(RECIPE, overrides), folder, Silent())
    return row.run(0)


def trained(module: str, *arguments: str) -> str:
    """Run a module in a process of its own and return what it printed."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def rival(job_file: Path, attention: str) -> tuple[float, float]:
    """Return samples a second and accuracy of Trainer."""
    told = json.loads(trained("benchmarks.rival", str(job_file), "--attention", attention).splitlines()[-1])
    return told["samples_per_second"], told["accuracy"]


def ours(job_file: Path, job: Any) -> tuple[float, float]:
    """Return samples a second and accuracy of pewb."""
    trained("pewb.runner.worker", str(job_file))
    path = job.results / f"{job.run}.json"
    record = read_record(path)
    path.unlink()
    assert record.status == "success", record.reason
    steps = record.curves.loss[-1][0]
    return steps * job.recipe.training.batch_size / record.time.train_seconds, record.metrics["accuracy"].value


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("strategies", nargs="*", default=list(RATES), metavar="STRATEGY")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    print("| strategy | Trainer, samples/s | its attention | pewb, samples/s | ratio, least to most | accuracy |")
    print("| --- | ---: | --- | ---: | ---: | --- |")
    for strategy in arguments.strategies:
        with tempfile.TemporaryDirectory() as folder:
            job = job_of(strategy, arguments.steps, Path(folder, "results"))
            job_file = Path(folder, "job.json")
            job_file.write_text(job.model_dump_json(), encoding="utf-8")
            attention = max(("eager", "sdpa"), key=lambda one: rival(job_file, one)[0])
            rounds = [(rival(job_file, attention), ours(job_file, job)) for _ in range(arguments.rounds)]
        theirs, own = (statistics.median(side[0] for side in sides) for sides in zip(*rounds, strict=True))
        ratios = [mine[0] / other[0] for other, mine in rounds]
        accuracies = f"{rounds[0][0][1]:.3f} and {rounds[0][1][1]:.3f}"
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {strategy} | {theirs:.0f} | {attention} | {own:.0f} | {spread} | {accuracies} |", flush=True)


if __name__ == "__main__":
    main()
