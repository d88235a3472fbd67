"""How far the planner's memory is from what was measured on a GPU, beside two others that also predict it.

    python -m benchmarks.planner_accuracy [FACTS.json ...] [--row NAME]

The facts are published runs of one backbone on one GPU, each with its adapter's configuration, its parameter counts and
the most that the allocator held. The rivals: `accelerate estimate-memory`, which counts weights, gradients and Adam's
moments, and the rule of thumb of bytes per parameter with 34 bytes for each token, hidden unit and layer (Korthikanti et
al. 2022, arXiv:2205.05198, equation 1, without its attention term).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from pewb.errors import PewbError
from pewb.planner.estimate import Estimate, bounds
from pewb.planner.plan import plan
from pewb.planner.target import choose_target
from pewb.quiet import quieten_libraries
from pewb.recipe import Cell, DeviceSection, LoadedRecipe
from pewb.recipe.load import parse_recipe

FACTS = Path(__file__).parent / "facts"


def recipe_of(row: dict[str, Any], folder: str, batch_size: int, max_tokens: int) -> dict[str, Any]:
    """Return the recipe of a published row."""
    adapter = row["adapter_config"]
    config = {key: value for key, value in (adapter or {}).items() if value is not None}
    return {
        "backbone": folder,
        "task": {"kind": "causal_lm"},
        "strategy": {"kind": "peft", "config": config} if adapter else "full",
        "training": {
            "batch_size": batch_size,
            "micro_batch_size": batch_size,
            "max_tokens": max_tokens,
            "precision": "bf16-true",
        },
    }


def accelerate_bytes(folder: str) -> int:
    """Return what `accelerate estimate-memory --dtypes float16` says of "Training using Adam" for the model in `folder`.

    The command takes models of the hub alone, so its own functions are called on the same empty model that it would make:
    the backbone in full precision.
    """
    from accelerate import init_empty_weights
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes
    from transformers import AutoConfig, AutoModel

    with init_empty_weights():
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    total, _ = calculate_maximum_sizes(model)
    return int(max(estimate_training_usage(total, "float16").values()))


def rule_of_thumb_bytes(config: dict[str, Any], total: int, trainable: int, tokens: int) -> int:
    """Return 2 bytes a weight, what training adds to a trained one, and 34 bytes per token, hidden unit and layer.

    A weight trained in 16 bits gets a gradient and two moments in them, an adapter's is in 32 bits with all three.
    """
    added = 3 * 2 if trainable == total else 2 + 3 * 4
    return total * 2 + trainable * added + 34 * tokens * config["hidden_size"] * config["num_hidden_layers"]


def compared(facts: dict[str, Any], wanted: list[str] | None) -> None:
    """Print a table of the published runs in `facts`, those of `wanted` names if any, and how far off each predictor is."""
    setting = facts["setting"]
    target = choose_target(DeviceSection(), name="l40s")
    errors: dict[str, list[float]] = {}
    outside = 0
    print(
        "| run | published | reserved, planned | allocated, planned | rule of thumb | accelerate | counts | seconds |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(setting["config"]))
        accelerate = accelerate_bytes(folder)
        for row in facts["rows"]:
            if wanted and row["name"] not in wanted:
                continue
            name = row["name"] + (f", PEFT {row['versions']['peft']}" if "versions" in row else "")
            published = row["accelerator_memory_max_bytes"]
            content = recipe_of(row, folder, setting["batch_size"], setting["max_seq_length"])
            started = time.perf_counter()
            try:
                [planned] = plan(LoadedRecipe([Cell(parse_recipe(content))], {}), target)
            except PewbError as error:
                print(f"| {name} | {published / 1e9:.2f} GB | {error} |")
                continue
            found = planned.estimate
            assert isinstance(found, Estimate)
            counts = found.facts.parameters.trainable, found.facts.parameters.total
            equal = counts == (row["num_trainable_params"], row["num_total_params"])
            tokens = setting["batch_size"] * setting["max_seq_length"]
            predicted = {
                "reserved": found.train.needed_bytes,
                "allocated": found.train.allocated_bytes,
                "rule of thumb": rule_of_thumb_bytes(setting["config"], counts[1], counts[0], tokens),
                "accelerate": accelerate,
            }
            least, most = bounds(found.train)
            outside += not least <= published <= most
            cells = []
            for predictor, value in predicted.items():
                errors.setdefault(predictor, []).append(value / published - 1)
                cells.append(f"{value / 1e9:.2f} ({value / published - 1:+.1%})")
            told = "equal" if equal else f"{counts[0]:,} of {counts[1]:,}"
            seconds = time.perf_counter() - started
            print(f"| {name} | {published / 1e9:.2f} GB | {' | '.join(cells)} | {told} | {seconds:.1f} |")
            sys.stdout.flush()
    print()
    for predictor, values in errors.items():
        sizes = [abs(value) for value in values]
        print(f"- {predictor}: median error {statistics.median(sizes):.1%}, worst {max(sizes):.1%}")
    num_planned = len(next(iter(errors.values()), []))
    print(f"- {outside} of {num_planned} published peaks lie outside what the plan calls borderline")


def main() -> None:
    """Print a table for each file of facts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("facts", nargs="*", type=Path, default=sorted(FACTS.glob("*.json")))
    parser.add_argument("--row", action="append", help="only this row; may be repeated")
    arguments = parser.parse_args()
    quieten_libraries()
    for path in arguments.facts:
        print(f"\n`{path.name}`\n")
        compared(json.loads(path.read_text()), arguments.row)


if __name__ == "__main__":
    main()
