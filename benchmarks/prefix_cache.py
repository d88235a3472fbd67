"""How fast the top of a model trains, beside Trainer at its best (`benchmarks/rival.py`): pewb runs the frozen layers once.

    python -m benchmarks.prefix_cache [--rounds N] [STRATEGY ...]

minilm-l6 on movie-snippets in bfloat16, three epochs of batches of 32, equal learning rate and schedule, the backbone's own
dropout (pewb's is off in the frozen layers). End to end is everything that trains, the building of the cache included, which is
removed before each run; a further epoch of pewb's is what is left of that for each. The two sides take turns.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

from benchmarks.side_by_side import faster_attention, job_of, ours, spread, theirs
from pewb.assets import cache_folder

RECIPE = Path(__file__).parents[1] / "recipes" / "lora_sst2.toml"
EPOCHS = 3
STRATEGIES = {
    "top 1 layer": ['strategy={kind="top_layers", num_layers=1}', "training.learning_rate=5e-4"],
    "head only": ["strategy=head_only", "training.learning_rate=3e-3"],
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("strategies", nargs="*", default=list(STRATEGIES), metavar="STRATEGY")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    print(
        f"| trained | Trainer, {EPOCHS} epochs | its attention | pewb, {EPOCHS} epochs | ratio, least to most"
        " | Trainer, an epoch | pewb, a further epoch | ratio, least to most | accuracy |"
    )
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for name in arguments.strategies:
        asked = ["task=movie-snippets", "training.precision=bf16", f"training.epochs={EPOCHS}", *STRATEGIES[name]]
        rounds = []
        with tempfile.TemporaryDirectory() as folder:
            _, short = job_of(RECIPE, [*asked, "training.max_steps=40"], Path(folder))
            attention = faster_attention(short)
            job, file = job_of(RECIPE, asked, Path(folder))
            for _ in range(arguments.rounds):
                other = theirs(file, attention)
                shutil.rmtree(cache_folder() / "prefix", ignore_errors=True)
                rounds.append((other, ours(job, file)))
        whole = [(other["train_seconds"], mine.time.train_seconds or 0.0) for other, mine in rounds]
        further = [
            (other / EPOCHS, (own - (mine.time.prefix_seconds or 0.0)) / EPOCHS)
            for (other, own), (_, mine) in zip(whole, rounds, strict=True)
        ]
        other, mine = rounds[0]
        columns = [name]
        for pairs in (whole, further):
            columns += [
                f"{statistics.median(one for one, _ in pairs):.1f} s",
                *([attention] if pairs is whole else []),
                f"{statistics.median(own for _, own in pairs):.2f} s",
                spread([one / own for one, own in pairs]),
            ]
        columns.append(f"{other['accuracy']:.3f} and {mine.metrics['accuracy'].value:.3f}")
        print(f"| {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
