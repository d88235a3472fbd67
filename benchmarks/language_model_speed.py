"""How fast a small language model learns completions, and within what memory, beside Trainer with PEFT at its best.

    python -m benchmarks.language_model_speed [--examples N] [--rounds N]

smollm2-135m-instruct-q4_1, dequantised into a folder that both read, LoRA on query and value, bfloat16, batches of 8. Prompts are movie snippets, completions one to sixteen
more, so of mixed length, up to 512 tokens in all. The rival (`rival_language_model.py`) groups by length; it first tries both
attentions and both types of the frozen weights, and keeps the fastest. Real tokens a second of training, and the most memory
that the process held; pewb's is of its training. The loss is on the same test examples, per token (the rival's is a mean of
batches').
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.side_by_side import ATTENTIONS, job_of, ours, spread, theirs
from pewb.backbone import load_backbone, load_tokenizer, read_blueprint
from pewb.recipe import load_recipe
from pewb.reporting import Silent
from pewb.runner.prepare import prepare
from pewb.tasks import CausalLm, read_examples
from pewb.units import format_bytes

MODULE = "benchmarks.rival_language_model"
RECIPE = """
backbone = "{backbone}"
task = {{ kind = "causal_lm", train = "{train}", validation = "{test}", test = "{test}", prompt = "prompt" }}
strategy = {{ kind = "lora", rank = 8, alpha = 16, targets = ["query", "value"] }}
training = {{ epochs = 1, batch_size = 8, max_tokens = 512, learning_rate = 1e-3, schedule = "linear", precision = "bf16" }}
"""


def write_backbone(folder: Path) -> Path:
    """Write the embedded GGUF's weights as a folder of float32 ones, which Trainer can train."""
    source = Path(__file__).parents[1] / "recipes" / "lora_sst2.toml"
    asked = ["task=movie-snippets", "backbone=smollm2-135m-instruct-q4_1"]
    job, _ = job_of(source, asked, folder)
    blueprint = read_blueprint(job.backbone_folder, [], task=CausalLm())
    model = load_backbone(blueprint, None, torch.device("cpu"))
    target = folder / "smollm2-135m"
    model.save_pretrained(target)
    load_tokenizer(blueprint, "right").save_pretrained(target)
    return target


def write_recipe(folder: Path, backbone: Path, num_examples: int) -> Path:
    """Write completions of mixed length and the recipe that trains on them."""
    snippets = Path(__file__).parents[1] / "recipes" / "lora_sst2.toml"
    [row] = prepare(load_recipe(snippets, ["task=movie-snippets"]), folder / "snippets", Silent())
    job = row.run(0)
    texts = iter([text for (text,) in read_examples(job.task, job.task_folder, {}).train.texts])
    drawn = random.Random(0)
    for name, count in (("train", num_examples), ("test", 32)):
        rows = []
        for _ in range(count):
            prompt, *rest = itertools.islice(texts, 1 + drawn.randint(1, 16))
            rows.append(json.dumps({"prompt": prompt, "completion": " ".join(rest)}))
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    recipe = folder / "recipe.toml"
    recipe.write_text(
        RECIPE.format(backbone=backbone, train=folder / "train.jsonl", test=folder / "test.jsonl"), encoding="utf-8"
    )
    return recipe


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backbone = write_backbone(folder)
        _, short = job_of(write_recipe(folder, backbone, 16), [], folder)
        settings = list(itertools.product(ATTENTIONS, ("bfloat16", "float32")))
        tried = {one: theirs(short, one[0], MODULE, "--weights", one[1])["tokens_per_second"] for one in settings}
        attention, weights = max(tried, key=lambda one: tried[one])
        job, file = job_of(write_recipe(folder, backbone, arguments.examples), [], folder)
        rounds = [
            (theirs(file, attention, MODULE, "--weights", weights), ours(job, file)) for _ in range(arguments.rounds)
        ]
    print("| | Trainer | pewb | ratio, least to most |")
    print("| --- | ---: | ---: | ---: |")
    rates = [(other["tokens_per_second"], mine.time.tokens_per_second or 0.0) for other, mine in rounds]
    peaks = [(other["peak_resident_bytes"], mine.memory.train.peak_resident_bytes or 0) for other, mine in rounds]
    losses = [(other["loss"], mine.metrics["loss"].value) for other, mine in rounds]

    def middle(pairs: list[tuple[float, float]], side: int) -> float:
        return statistics.median(pair[side] for pair in pairs)

    print(
        f"| tokens/s | {middle(rates, 0):.0f} | {middle(rates, 1):.0f} | {spread([own / one for one, own in rates])} |"
    )
    resident = [format_bytes(int(middle(peaks, side))) for side in (0, 1)]
    print(f"| peak resident memory | {resident[0]} | {resident[1]} | {spread([own / one for one, own in peaks])} |")
    print(f"| loss on test | {middle(losses, 0):.3f} | {middle(losses, 1):.3f} | |")
    print(f"\nThe rival's attention: {attention}; its frozen weights: {weights}.")


if __name__ == "__main__":
    main()
