"""The real thing: real weights, real text, and what a run leaves, read by plain transformers and PEFT."""

import csv
import json

import pytest
import torch

from pewb.assets import fetch, tasks
from pewb.recipe import LoadedRecipe, load_recipe
from pewb.runner import run
from pewb.tasks import decode_task, read_examples
from tests.test_recipe import ROOT

SHORT = [
    "task=movie-snippets", "training.epochs=1", "training.max_steps=6", "training.precision=fp32",
    "limit.train=200", "limit.validation=50", "limit.test=60",
]  # fmt: skip


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory):
    loaded: LoadedRecipe = load_recipe(ROOT / "recipes" / "lora_sst2.toml", SHORT)
    results = tmp_path_factory.mktemp("work") / "results"
    [(record, path)] = run(loaded, results)
    assert record.status == "success", record.traceback
    return loaded.recipe, record, path


@pytest.mark.assets
def test_the_saved_adapter_loads_with_plain_peft_and_predicts_the_same(lora_run):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    recipe, record, path = lora_run
    backbone, task = fetch("backbone", "minilm-l6"), fetch("task", "movie-snippets")
    examples = read_examples(decode_task(tasks()["movie-snippets"].spec), task.folder, recipe.limit.model_dump())
    base = AutoModelForSequenceClassification.from_pretrained(backbone.folder, num_labels=2, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, path.parent / record.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(backbone.folder)
    inputs = tokenizer(
        [one[0] for one in examples.test.texts], padding=True, truncation=True, max_length=128, return_tensors="pt"
    )
    with torch.no_grad():
        probabilities = model(**inputs).logits.softmax(-1)
    with (path.parent / record.predictions).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    stored = torch.tensor([[float(row["p(negative)"]), float(row["p(positive)"])] for row in rows])
    torch.testing.assert_close(probabilities, stored, rtol=0, atol=1e-4)
    assert [examples.labels[index] for index in probabilities.argmax(1)] == [row["predicted"] for row in rows]
    config = json.loads((path.parent / record.model / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] in ("minilm-l6", "sentence-transformers/all-MiniLM-L6-v2")


@pytest.mark.assets
def test_the_record_counts_the_real_backbone(lora_run):
    _, record, _ = lora_run
    assert record.parameters.total == 22_713_216 + 2 * 384 + 2 + 2 * 6 * 2 * 384 * 8
    assert record.parameters.head == 384 * 384 + 384 + 2 * 384 + 2
    assert record.memory.train.peak_allocated_bytes > 4 * record.parameters.trainable + 4 * 22_000_000
    assert record.memory.evaluation.peak_allocated_bytes < record.memory.train.peak_allocated_bytes
    assert {asset.kind for asset in record.assets} == {"backbone", "task"}


@pytest.mark.slow
@pytest.mark.assets
def test_accuracy_of_trainer_and_peft_is_within_the_interval(tmp_path):
    """The whole recipe, here and with transformers' Trainer; both accuracies are printed."""
    from tests.reference_trainer import compare

    loaded = load_recipe(ROOT / "recipes" / "lora_sst2.toml", ["task=movie-snippets"])
    [(record, _)] = run(loaded, tmp_path / "results")
    ours, rival = compare(record)
    assert ours.low <= rival["accuracy"] <= ours.high
