"""How long a whole comparison takes, tuned, beside the same trainings as separate scripts (`benchmarks/rival.py`).

    python -m benchmarks.comparison_speed [--limit N] [ROW ...]

Nine rows of `recipes/compare_sst2.toml` with its epochs, trials and seeds, on minilm-l6 and movie-snippets in bfloat16; on so
many training examples, for all rows with all examples would take a day. Of the nine pewb keeps one's frozen layers, as of the recipe's 28
three. pewb's time is that of the command
`pewb run`, from an empty cache of texts and frozen layers. A script's is that of its process, imports and test included, at the
faster of both attentions; each row's is run once, at the middle rate, and counts as often as pewb trained that row: for
each trial, whether or not pewb gave it up on the way, and for each seed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import faster_attention, job_of, theirs
from pewb.assets import cache_folder
from pewb.record import Record, read_records

RECIPES = Path(__file__).parents[1] / "recipes"
ROWS = {
    "full": '"full"',
    "lora": '{kind="lora", rank=8, alpha=16, targets=["query", "value"]}',
    "dora": '{kind="lora", variant="dora"}',
    "prefix tuning": '{kind="prefix_tuning", num_virtual_tokens=20}',
    "prompt tuning": '{kind="prompt_tuning", num_virtual_tokens=20}',
    "ia3": '"ia3"',
    "bitfit": '"bitfit"',
    "layer norm": '"layer_norm"',
    "top 2 layers": '{kind="top_layers", num_layers=2}',
}


def asked(limit: int) -> list[str]:
    """Return what makes a recipe one of this bench."""
    limits = [f"limit.train={limit}", f"limit.validation={limit // 4}", f"limit.test={limit // 4}"]
    return ["task=movie-snippets", "training.precision=bf16", "training.schedule=cosine", "training.epochs=3", *limits]


@dataclass(frozen=True)
class Script:
    """One training by Trainer."""

    seconds: float
    """Of the whole process."""
    accuracy: float
    attention: str
    strategy: dict[str, Any]
    """As a record of pewb's says it."""


def script(row: str, limit: int, folder: Path) -> Script:
    """Run a row's script."""
    settings = [f"strategy={ROWS[row]}", *asked(limit)]
    _, short = job_of(RECIPES / "full_sst2.toml", [*settings, "training.max_steps=20"], folder)
    attention = faster_attention(short)
    job, file = job_of(RECIPES / "full_sst2.toml", settings, folder)
    started = time.perf_counter()
    told = theirs(file, attention)
    seconds = time.perf_counter() - started
    return Script(seconds, told["accuracy"], attention, job.recipe.model_dump(mode="json")["strategy"])


def comparison(rows: list[str], limit: int, folder: Path) -> tuple[float, list[Record]]:
    """Return the seconds of pewb's whole comparison, and its records."""
    for kept in ("prefix", "tokenised"):
        shutil.rmtree(cache_folder() / kept, ignore_errors=True)
    compared = ", ".join(f"{{strategy={ROWS[row]}}}" for row in rows)
    settings = [f"compare=[{compared}]", *asked(limit)]
    options = [option for setting in settings for option in ("--set", setting)]
    results = folder / "compared"
    command = [sys.executable, "-m", "pewb", "run", str(RECIPES / "compare_sst2.toml"), "--results", str(results)]
    started = time.perf_counter()
    subprocess.run([*command, *options], check=True, stdout=sys.stderr)
    return time.perf_counter() - started, [one for one in read_records(results) if not one.is_reference]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=list(ROWS), metavar="ROW")
    parser.add_argument("--limit", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scripts = {row: script(row, arguments.limit, Path(folder)) for row in arguments.rows}
        seconds, records = comparison(arguments.rows, arguments.limit, Path(folder))
    print(
        "| row | a script | its attention | accuracy | as often | by pewb, its runs alone | accuracy | trials given up |"
    )
    print("| --- | ---: | --- | ---: | ---: | ---: | --- | ---: |")
    total = 0.0
    for row, one in scripts.items():
        mine = [record for record in records if record.recipe_resolved["strategy"] == one.strategy]
        trials = mine[0].tuning.trials if mine[0].tuning else []
        times = len(trials) + len(mine)
        total += times * one.seconds
        columns = [
            row,
            f"{one.seconds:.0f} s",
            one.attention,
            f"{one.accuracy:.3f}",
            f"{times}",
            f"{statistics.mean(record.time.total_seconds or 0.0 for record in mine):.0f} s",
            ", ".join(f"{record.metrics['accuracy'].value:.3f}" for record in mine),
            f"{sum(trial.state == 'pruned' for trial in trials)} of {len(trials)}",
        ]
        print(f"| {' | '.join(columns)} |")
    print(f"\nScripts: {total:.0f} s. pewb: {seconds:.0f} s. Ratio: {total / seconds:.2f}.")


if __name__ == "__main__":
    main()
