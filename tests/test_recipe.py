"""Recipes: what is accepted, what is refused, and that every fault names its key and the way out."""

import subprocess
import sys
from pathlib import Path

import pytest

from pewb.errors import InputError, RefusedError
from pewb.recipe import Recipe, load_recipe, parse_recipe
from pewb.strategies import strategies

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
MINIMAL = {"backbone": "minilm-l6", "task": "movie-snippets", "strategy": {"kind": "lora"}}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_committed_recipe_is_right(path):
    assert load_recipe(path).recipe.training.learning_rate


def test_every_strategy_has_a_recipe():
    assert {load_recipe(path).recipe.strategy.kind for path in RECIPES} == set(strategies())


def test_the_recipe_of_the_design():
    recipe = load_recipe(ROOT / "recipes" / "lora_sst2.toml").recipe
    assert recipe.backbone == ["minilm-l6"]
    assert recipe.task == ["sst2", "movie-snippets"]
    assert (recipe.strategy.rank, recipe.strategy.alpha, recipe.strategy.targets) == (8, 16, ["query", "value"])
    assert (recipe.training.learning_rate, recipe.training.schedule, recipe.training.epochs) == (1e-3, "cosine", 3)


@pytest.mark.parametrize("name", strategies())
def test_a_strategy_brings_its_own_learning_rate(name):
    recipe = parse_recipe(MINIMAL | {"strategy": {"kind": name}})
    assert recipe.training.learning_rate == strategies()[name].default_learning_rate
    assert (
        parse_recipe(MINIMAL | {"strategy": name, "training": {"learning_rate": 1e-4}}).training.learning_rate == 1e-4
    )


def test_all_faults_are_told_at_once():
    faulty = {
        "backbon": "minilm-l6",
        "task": "movie-snippets",
        "quantization": "nf4",
        "strategy": {"kind": "full", "rnak": 3},
        "training": {"epoch": 3, "precision": "bf61", "batch_size": 0},
    }
    with pytest.raises(InputError) as caught:
        parse_recipe(faulty, "my.toml")
    text = str(caught.value)
    lines = text.splitlines()
    assert all(line.startswith("my.toml: ") for line in lines)
    for expected in (
        "backbon: unknown key; did you mean 'backbone'?",
        "backbone: missing",
        "strategy.rnak: unknown key",
        "training.epoch: unknown key; did you mean 'epochs'?",
        "training.precision: got 'bf61'; did you mean 'bf16'?; allowed: auto, fp32, bf16, fp16, bf16-true",
        "training.batch_size: got 0",
    ):
        assert expected in text
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": {"kind": "full"}, "quantization": "nf4"}, "quantised weights have no gradients"),
        ({"quantization": {"kind": "int8", "double": True}}, "only 4-bit kinds"),
        (
            {"strategy": {"kind": "prefix_tuning"}, "training": {"gradient_checkpointing": True}},
            "gradient_checkpointing",
        ),
        ({"training": {"batch_size": 8, "micro_batch_size": 16}}, "micro_batch_size: 16 is more than batch_size = 8"),
    ],
)
def test_combinations_that_can_not_be_are_refused_with_the_reason(change, message):
    with pytest.raises(RefusedError, match=message):
        parse_recipe(MINIMAL | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": {"kind": "loar"}}, "strategy.kind: got 'loar'; did you mean 'lora'"),
        ({"strategy": {}}, "strategy.kind: missing; name one of"),
        ({"task": {"kind": "text_classification", "train": "a.csv"}}, "'test' is missing"),
        ({"task": {"kind": "text_classification", "trian": "a.csv"}}, "did you mean 'train'"),
        ({"device": {"memory": "8 Gigs"}}, "is not a size"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [2**70]}, "seeds"),
        (
            {"training": {"max_grad_norm": float("inf")}},
            "training.max_grad_norm: got inf; input should be a finite number",
        ),
    ],
)
def test_a_fault_names_the_way_out(change, message):
    with pytest.raises(InputError, match=message):
        parse_recipe(MINIMAL | change)


def test_overrides(tmp_path):
    path = ROOT / "recipes" / "lora_sst2.toml"
    loaded = load_recipe(
        path, ["training.epochs=1", "strategy.targets=['query']", "task=movie-snippets", "limit.train=10"]
    )
    recipe = loaded.recipe
    assert (recipe.training.epochs, recipe.strategy.targets, recipe.task, recipe.limit.train) == (
        1,
        ["query"],
        ["movie-snippets"],
        10,
    )
    assert loaded.given["content"]["training"]["epochs"] == 3
    assert loaded.given["set"][0] == "training.epochs=1"
    with pytest.raises(InputError, match=r"section\.key=value"):
        load_recipe(path, ["training.epochs"])


def test_another_strategy_kind_replaces_the_section_and_its_learning_rate():
    path = ROOT / "recipes" / "lora_sst2.toml"
    for override in ("strategy.kind=full", "strategy=full"):
        recipe = load_recipe(path, [override]).recipe
        assert recipe.strategy.kind == "full"
        assert recipe.training.learning_rate == strategies()["full"].default_learning_rate
    assert load_recipe(path, ["strategy=full", "training.learning_rate=1e-4"]).recipe.training.learning_rate == 1e-4
    assert load_recipe(path, ["quantization.kind=nf4", "quantization.double=true"]).recipe.quantization.double


def test_a_whole_section_can_be_given_on_the_command_line():
    path = ROOT / "recipes" / "lora_sst2.toml"
    recipe = load_recipe(path, ['strategy={kind="lora", rank=4}']).recipe
    assert (recipe.strategy.rank, recipe.training.learning_rate) == (4, 1e-3)
    recipe = load_recipe(path, ['strategy={kind="top_layers", num_layers=1}']).recipe
    assert (recipe.strategy.num_layers, recipe.training.learning_rate) == (1, 5e-5)


def test_an_override_mends_a_section_of_the_wrong_type(tmp_path):
    (tmp_path / "odd.toml").write_text('backbone = "minilm-l6"\ntask = "movie-snippets"\nstrategy = 5\n')
    assert load_recipe(tmp_path / "odd.toml", ["strategy=full"]).recipe.strategy.kind == "full"
    with pytest.raises(InputError, match="strategy"):
        load_recipe(tmp_path / "odd.toml")


def test_files_that_do_not_serve(tmp_path):
    with pytest.raises(InputError, match="no such recipe"):
        load_recipe(tmp_path / "missing.toml")
    (tmp_path / "bad.toml").write_text("backbone = [")
    with pytest.raises(InputError, match="not valid TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_a_resolved_recipe_is_a_recipe():
    recipe = parse_recipe(MINIMAL)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize("module", ["pewb.cli", "pewb.recipe", "pewb.leaderboard", "pewb.runner", "pewb.assets"])
def test_nothing_heavy_is_imported_before_it_is_needed(module):
    code = f"import {module}, sys; print([name for name in ('torch', 'transformers', 'pandas', 'datasets', 'scipy') if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
