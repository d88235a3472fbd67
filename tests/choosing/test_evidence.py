"""Whose measurements speak for a row: those of the same backbone, task and settings; PEFT's schema, read and written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pewb.choosing import choose, targets_of
from pewb.choosing.evidence import read_evidence
from pewb.choosing.peft_export import export_results
from pewb.choosing.peft_results import read_result, read_results
from pewb.errors import InputError
from pewb.recipe import DeviceSection, Recipe, load_recipe, parse_recipe
from tests.test_recipe import ROOT

LORA = {
    "task_type": "CAUSAL_LM",
    "peft_type": "LORA",
    "base_model_name_or_path": "meta-llama/Llama-3.2-3B",
    "r": 32,
    "target_modules": ["v_proj", "q_proj"],
    "lora_alpha": 64,
    "lora_dropout": 0.0,
    "bias": "none",
    "use_rslora": False,
    "init_lora_weights": True,
    "rank_pattern": {},
    "use_dora": False,
    "megatron_core": "megatron.core",
}


def a_result(**changes):
    """Return a document as PEFT's comparison writes it (its shape is that of lora--llama-3.2-3B-rank32.json, 2025)."""
    run = {
        "created_at": "2025-06-19T19:15:35+00:00",
        "total_time": 1993.5,
        "experiment_name": "lora/llama-3.2-3B-rank32",
        "peft_branch": "main",
        "train_config": {
            "model_id": "meta-llama/Llama-3.2-3B",
            "dtype": "bfloat16",
            "max_seq_length": 768,
            "batch_size": 4,
            "max_steps": 5000,
            "seed": 0,
            "grad_norm_clip": 1.0,
            "optimizer_type": "AdamW",
            "optimizer_kwargs": {"lr": 0.0001, "weight_decay": 0.1},
            "lr_scheduler": "cosine",
        },
        "peft_config": LORA,
        "error_msg": "",
    }
    train = {
        "cuda_memory_max": 22_273_851_392,
        "train_time": 1796.2,
        "file_size": 36_715_216,
        "num_trainable_params": 9_175_040,
        "num_total_params": 3_221_924_864,
        "status": "success",
        "metrics": [{"step": 5000, "test accuracy": 636 / 1319, "train loss": 0.6}],
    }
    meta = {
        "dataset_info": {"metamath": {"sha": "a"}, "gsm8k": {"sha": "b"}},
        "system_info": {"gpu": "NVIDIA L40S"},
    }
    for key, value in changes.items():
        next(section for section in (run["train_config"], run, train, meta) if key in section)[key] = value
    return {"run_info": run, "train_info": train, "meta_info": meta}


@pytest.fixture
def result_file(tmp_path):
    def write(name="result.json", **changes) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(a_result(**changes)))
        return path

    return write


def test_a_published_result_in_pewbs_words(result_file):
    imported = read_result(result_file())
    record = imported.record
    assert imported.unmapped == []
    assert (record.backbone, record.task, record.quantization) == ("llama-3.2-3b", "metamathqa-gsm8k", "none")
    assert record.recipe_resolved["strategy"] == {
        "kind": "lora",
        "variant": "plain",
        "rank": 32,
        "alpha": 64.0,
        "dropout": 0.0,
        "targets": ["query", "value"],
    }
    metric = record.metrics["accuracy"]
    assert metric.value == pytest.approx(0.482183)
    assert metric.low < metric.value < metric.high
    assert metric.interval == "wilson"
    assert record.memory.train.peak_reserved_bytes == 22_273_851_392
    assert record.device.name == "NVIDIA L40S"


@pytest.mark.parametrize(
    ("changes", "strategy", "quantization"),
    [
        ({"peft_config": None}, {"kind": "full"}, "none"),
        ({"dtype": "int4"}, {"kind": "lora"}, "fp4"),
        ({"peft_config": LORA | {"use_dora": True}}, {"kind": "lora", "variant": "dora"}, "none"),
        ({"peft_config": LORA | {"rank_pattern": {"q_proj": 4}}}, {"kind": "peft"}, "none"),
        (
            {"peft_config": {"peft_type": "VBLORA", "r": 8}},
            {"kind": "peft", "config": {"peft_type": "VBLORA", "r": 8}},
            "none",
        ),
        (  # what PEFT would take if it were not said is left out, whatever else it is
            {
                "peft_config": {
                    "peft_type": "OFT",
                    "use_cayley_neumann": False,
                    "coft": False,
                    "bias": "none",
                    "r": None,
                }
            },
            {"kind": "peft", "config": {"peft_type": "OFT", "use_cayley_neumann": False}},
            "none",
        ),
        (
            {"peft_config": LORA | {"init_lora_weights": False}},
            {
                "kind": "peft",
                "config": {
                    "peft_type": "LORA",
                    "r": 32,
                    "target_modules": ["v_proj", "q_proj"],
                    "lora_alpha": 64,
                    "init_lora_weights": False,
                },
            },
            "none",
        ),
    ],
)
def test_how_methods_are_mapped(result_file, changes, strategy, quantization):
    record = read_result(result_file(**changes)).record
    assert strategy.items() <= record.recipe_resolved["strategy"].items()
    assert record.quantization == quantization


def test_the_names_of_today_are_read_too(tmp_path):
    document = a_result()
    train, meta = document["train_info"], document["meta_info"]
    train["accelerator_memory_max"] = train.pop("cuda_memory_max") + 1
    meta["system_info"] = {"accelerator": "NVIDIA H100"}
    (tmp_path / "new.json").write_text(json.dumps(document))
    record = read_result(tmp_path / "new.json").record
    assert record.memory.train.peak_reserved_bytes == 22_273_851_393
    assert record.device.name == "NVIDIA H100"


def test_a_file_of_another_pewb_is_refused(tmp_path):
    files, _ = export_results(ROOT / "results", tmp_path)
    document = json.loads(files[0].read_text())
    document["meta_info"]["pewb"]["schema_version"] = 99
    files[0].write_text(json.dumps(document))
    with pytest.raises(InputError, match="export it anew"):
        read_result(files[0])


def test_what_is_not_mapped_is_told(result_file):
    assert "optimizer SGD" in read_result(result_file(optimizer_type="SGD")).unmapped
    found = read_result(result_file(dataset_info={"other": {}}))
    assert found.unmapped == ["no interval: the number of test examples is not known"]
    assert read_result(result_file(status="failed", error_msg="broke")).record.status == "failed"


def test_bad_files(tmp_path):
    for content, word in (("{", "not JSON"), ("{}", "run_info"), ('{"run_info": 3}', "run_info"), ("[]", "document")):
        path = tmp_path / "bad.json"
        path.write_text(content)
        with pytest.raises(InputError, match=word):
            read_result(path)
    with pytest.raises(InputError, match=r"no \.json file"):
        (tmp_path / "empty").mkdir()
        read_results([tmp_path / "empty"])
    with pytest.raises(InputError, match="can't be read"):
        read_results([tmp_path / "missing.json"])


def test_records_round_trip_through_pefts_schema(tmp_path):
    files, left_out = export_results(ROOT / "results", tmp_path / "peft")
    assert left_out
    reasons = ("reference", "the schema has no place for", "it has no result (refused)")
    assert all(any(reason in text for reason in reasons) for text in left_out)
    for imported in read_results([tmp_path / "peft"]):
        assert imported.unmapped == []
    original = read_evidence(ROOT / "results", with_shipped=False)
    again = read_evidence(None, files, with_shipped=False)
    keep = ("label", "main", "seeds", "parameters", "time", "test_digest", "backbone_digest", "num_trials")
    assert [[getattr(row, key) for key in keep] for row in again.rows] == [
        [getattr(row, key) for key in keep]
        for row in original.rows
        if row.kind == "strategy" and row.main_metric == "accuracy" and row.status == "success"
    ]
    document = json.loads(files[0].read_text())
    assert {"accelerator_memory_max", "train_time", "file_size", "num_trainable_params"} <= set(document["train_info"])
    assert {"test accuracy", "train loss", "train samples", "train total tokens"} <= set(
        document["train_info"]["metrics"][-1]
    ), "what PEFT's own tables are made of"


def test_exported_evidence_counts_like_the_records(simulated_as, tmp_path):
    files, _ = export_results(ROOT / "results", tmp_path / "peft")
    loaded = load_recipe(ROOT / "recipes" / "compare_basics_sst2.toml")
    target = targets_of([DeviceSection()], None, ["8GiB"])
    found = choose(loaded, target, evidence_files=files, with_shipped=False)
    assert [entry.value for entry in found.ranking.entries] == [
        entry.value for entry in choose(loaded, target).ranking.entries
    ]
    assert "not tested" in found.ranking.reason, "predictions are not exported"


def test_published_results_count_for_their_backbone_and_task_alone(simulated_as, result_file, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'backbone = "llama-3.2-3b"\ntask = { kind = "causal_lm" }\n'
        'strategy = { kind = "lora", rank = 32, alpha = 64 }\n'
        "training = { batch_size = 4, max_tokens = 768, max_steps = 5000 }\n"
    )
    target = targets_of([DeviceSection()], None, ["24GiB"])
    found = choose(load_recipe(recipe), target, evidence_files=[result_file()])
    assert found.choice is None
    [foreign] = [one for one in found.elsewhere if one.row.backbone == "llama-3.2-3b"]
    assert foreign.because == ("another task: metamathqa-gsm8k",)
    recipe.write_text(recipe.read_text().replace('{ kind = "causal_lm" }', '"metamathqa-gsm8k"'))
    found = choose(load_recipe(recipe), target, evidence_files=[result_file()])
    assert found.choice is not None
    assert found.choice.value == pytest.approx(636 / 1319)
    assert "the only row that fits and was measured" in found.ranking.reason


def test_settings_and_budgets_of_training_must_be_the_same(simulated_as, tmp_path):
    recipe = tmp_path / "recipe.toml"
    text = 'backbone = "minilm-l6"\ntask = ["sst2", "movie-snippets"]\nstrategy = { kind = "lora", rank = RANK }\n[training]\nepochs = EPOCHS\n'
    target = targets_of([DeviceSection()], None, ["8GiB"])

    def found(rank, epochs):
        recipe.write_text(text.replace("RANK", str(rank)).replace("EPOCHS", str(epochs)))
        return choose(load_recipe(recipe), target)

    same = found(8, 3)
    assert same.choice is not None
    assert same.choice.candidate.support.row.task == "movie-snippets"
    assert any("learning_rate" in text for text in same.choice.candidate.support.differs)
    assert found(4, 3).choice is None
    other = found(8, 1)
    assert other.choice is None
    assert ("other training: epochs 3",) in [one.because for one in other.elsewhere]


def test_every_row_of_a_comparison_of_sizes_has_its_evidence():
    loaded = load_recipe(ROOT / "recipes" / "sample_sizes_movie_snippets.toml")
    supports, _ = read_evidence(None).supports(loaded.cells, ["minilm-l6"] * len(loaded.cells))
    assert all(supports)
    assert {support.row.train_examples for support in supports} == {200, 1000}
    assert all(not support.differs for support in supports)


OTHERWISE = {
    "backbone": "bert-base",
    "task": "tweets-rating",
    "quantization": {"kind": "fp4"},
    "strategy": {"kind": "lora", "rank": 4},
    "training": {"epochs": 4},
    "limit": {"train": 100},
    "augment": {"swap": 0.1},
    "tune": None,
    "seeds": [7],
    "generation": None,
    "device": {"threads": 1},
}
"""Another value of each section of a recipe."""


@pytest.mark.parametrize("section", Recipe.model_fields)
def test_each_section_of_a_recipe_keeps_evidence_apart_or_is_said_not_to(section):
    loaded = load_recipe(ROOT / "recipes" / "compare_basics_sst2.toml", ['task="movie-snippets"'])
    evidence = read_evidence(None)

    def supported(recipe):
        return evidence.supports([replace(cell, recipe=recipe)], [recipe.backbone[0]])[0][0]

    cell = next(one for one in loaded.cells if one.recipe.strategy.kind == "lora")
    as_measured = cell.recipe
    exact = supported(as_measured)
    assert exact is not None
    value = OTHERWISE[section]
    changed = as_measured.model_dump(mode="json") | {
        section: value if section != "training" else as_measured.training.model_dump(mode="json") | value
    }
    other = supported(parse_recipe(changed, "changed"))
    if section in ("seeds", "generation", "device"):  # alter nothing of what the row is worth
        assert other == exact
    elif section == "tune":
        assert other is None or "tuned" in " ".join(other.differs) or other.row.num_trials is None
    else:
        assert other is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 86.4, -0.5, True, "0.5"])
def test_what_is_no_accuracy_ranks_nothing(tmp_path, value):
    document = a_result()
    document["train_info"]["metrics"][-1]["test accuracy"] = value
    (tmp_path / "result.json").write_text(json.dumps(document))
    imported = read_result(tmp_path / "result.json")
    assert imported.record.metrics == {}
    assert "no test accuracy between 0 and 1" in imported.unmapped


def test_another_optimizer_is_another_training(tmp_path):
    document = a_result()
    document["run_info"]["train_config"]["optimizer_type"] = "lora-fa"
    (tmp_path / "result.json").write_text(json.dumps(document))
    assert read_result(tmp_path / "result.json").record.recipe_resolved["training"]["optimizer"] == "lora-fa"
