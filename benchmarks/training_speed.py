"""How fast runs train, beside what a user would write instead: Trainer with PEFT at its best (`benchmarks/rival.py`).

    python -m benchmarks.training_speed [--steps N] [--rounds N] [STRATEGY ...]

minilm-l6 on movie-snippets in bfloat16, batches of 32, equal dropout, learning rate and schedule. The rival first tries both of
transformers' attentions and keeps the faster. Then they take turns, each in a process of its own: rival, pewb, rival, pewb.
Samples a second are those of the training loop; pewb's seconds hold the steps whose memory it follows. The ratio is of
neighbours, the least and the most are printed. Accuracies are on the test split after so many steps. The last column is what pewb
used of the machine's matmul peak.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.side_by_side import faster_attention, job_of, ours, spread, theirs
from pewb.record import Record

RECIPE = Path(__file__).parents[1] / "recipes" / "lora_sst2.toml"
RATES = {"lora": 1e-3, "full": 5e-5, "bitfit": 1e-3}


def overrides(strategy: str, steps: int) -> list[str]:
    """Return what makes the recipe one of `strategy`."""
    return [
        "task=movie-snippets",
        f"strategy={strategy}",
        f"training.learning_rate={RATES[strategy]}",
        "training.precision=bf16",
        "training.dropout=0.1",
        f"training.max_steps={steps}",
    ]


def rate(record: Record) -> float:
    """Return pewb's samples a second, of every step."""
    assert record.time.train_seconds
    return record.curves.loss[-1][0] * record.recipe_resolved["training"]["batch_size"] / record.time.train_seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("strategies", nargs="*", default=list(RATES), metavar="STRATEGY")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    print(
        "| strategy | Trainer, samples/s | its attention | pewb, samples/s | ratio, least to most | accuracy | of the peak |"
    )
    print("| --- | ---: | --- | ---: | ---: | --- | ---: |")
    for strategy in arguments.strategies:
        with tempfile.TemporaryDirectory() as folder:
            job, file = job_of(RECIPE, overrides(strategy, arguments.steps), Path(folder))
            attention = faster_attention(file)
            rounds = [(theirs(file, attention), ours(job, file)) for _ in range(arguments.rounds)]
        rates = [(other["samples_per_second"], rate(mine)) for other, mine in rounds]
        other, mine = rounds[0]
        columns = [
            strategy,
            f"{statistics.median(one for one, _ in rates):.0f}",
            attention,
            f"{statistics.median(one for _, one in rates):.0f}",
            spread([own / one for one, own in rates]),
            f"{other['accuracy']:.3f} and {mine.metrics['accuracy'].value:.3f}",
            f"{mine.time.model_flops_utilization:.0%}",
        ]
        print(f"| {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
