"""Recipes: what is accepted, what is refused, and that every fault names its key and the way out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pewb.errors import InputError, RefusedError
from pewb.recipe import Recipe, distinctions, load_recipe, parse_recipe, recipe_keys
from pewb.strategies import strategies

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
MINIMAL = {"backbone": "minilm-l6", "task": "movie-snippets", "strategy": {"kind": "lora"}}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_committed_recipe_is_right(path):
    assert all(cell.recipe.training.learning_rate for cell in load_recipe(path).cells)


def test_every_strategy_has_a_recipe():
    single = [path for path in RECIPES if path.stem.endswith("_sst2") and not path.stem.startswith("compare_")]
    assert {load_recipe(path).recipe.strategy.kind for path in single} == set(strategies())


def test_the_comparison_holds_every_strategy_and_every_variant():
    cells = load_recipe(ROOT / "recipes" / "compare_sst2.toml").cells
    compared = [cell.recipe.strategy for cell in cells]
    assert {strategy.kind for strategy in compared} == set(strategies())
    for name, kind in strategies().items():
        for variant in kind.variants():
            assert any(one.model_dump() | variant == one.model_dump() for one in compared if one.kind == name)
    assert {cell.recipe.tune.trials for cell in cells} == {4}, "the same number of trials for each"
    basics = load_recipe(ROOT / "recipes" / "compare_basics_sst2.toml").cells
    assert all(cell in cells for cell in basics), "their runs are shared"


def test_every_key_says_what_it_is_and_what_it_takes():
    keys = {(key.name, *key.kinds): key for key in recipe_keys()}
    assert [key.name for key in keys.values() if not (key.description and key.allowed)] == []
    rate, optimizer = keys["training.learning_rate",], keys["training.optimizer",]
    assert (rate.allowed, rate.default) == ("number, above 0", None)
    assert (optimizer.allowed, optimizer.default) == ("adamw | adamw_8bit | paged_adamw_8bit | sgd", '"adamw"')
    assert keys["strategy.kind",].allowed == " | ".join(strategies())
    assert keys["strategy.num_virtual_tokens", "prompt_tuning", "p_tuning"].default == "20"
    assert keys["task.split",].allowed == "table of train, validation, test"
    known = {name.split(".")[0] for name, *_ in keys}
    assert known == set(Recipe.model_fields) | {"compare", "grid"}
    assert [key.name for key in keys.values() if key.is_required] == ["backbone", "task", "strategy"]


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
        "backbon: unknown key (did you mean 'backbone'?)",
        "backbone: missing",
        "strategy.rnak: unknown key",
        "training.epoch: unknown key (did you mean 'epochs'?)",
        "training.precision: got 'bf61' (did you mean 'bf16'?); allowed: auto, fp32, bf16, fp16, bf16-true",
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
        ({"task": {"kind": "text_regression"}, "training": {"class_weights": "balanced"}}, "has no classes"),
        ({"task": "tweets-rating", "training": {"label_smoothing": 0.1}}, "no one class to smooth"),
        (
            {"task": {"kind": "text_classification", "multi_label": True}, "training": {"label_smoothing": 0.1}},
            "no one class to smooth",
        ),
        (
            {"task": "tweets-rating", "tune": {"trials": 12, "search": {"training.label_smoothing": [0.0, 0.1]}}},
            "tune.search: training.label_smoothing: .* no one class",
        ),
        ({"training": {"packing": True}}, "only texts that are continued"),
        ({"task": {"kind": "multiple_choice"}, "training": {"packing": True}}, "only texts that are continued"),
    ],
)
def test_combinations_that_can_not_be_are_refused_with_the_reason(change, message):
    with pytest.raises(RefusedError, match=message):
        parse_recipe(MINIMAL | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": {"kind": "loar"}}, r"strategy.kind: got 'loar' \(did you mean 'lora'"),
        ({"strategy": {}}, "strategy.kind: missing; name one of"),
        ({"task": {"kind": "text_classification", "train": "a.csv"}}, "'test' is missing"),
        ({"task": {"kind": "text_classification", "trian": "a.csv"}}, "did you mean 'train'"),
        (
            {"task": {"kind": "causal_ml"}},
            r"task.kind: got 'causal_ml' \(did you mean 'causal_lm'.*; allowed: text_class",
        ),
        (
            {"task": {"kind": "causal_lm", "promt": "a"}},
            r"task.promt: unknown key \(did you mean 'prompt'.*completion, answer, .*parent$",
        ),
        ({"task": {"kind": "seq2seq", "label": "a"}}, "task.label: unknown key.*prompt, completion, answer$"),
        ({"task": {"kind": "text_classification", "prompt": "a"}}, "task.prompt: unknown key.*binarize, metric$"),
        ({"task": {"kind": "causal_lm", "data": "a", "split": {"tran": 8}}}, "task.split.tran.*did you mean 'train'"),
        ({"task": {"kind": "seq2seq", "data": "a", "prompt": "completion"}}, "are the same column, 'completion'"),
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


@pytest.mark.parametrize(
    "task", [{"kind": "causal_lm"}, {"kind": "seq2seq"}, {"kind": "text_classification", "labels": ["a", "b"]}]
)
def test_a_task_without_files_is_a_recipe(task):
    recipe = parse_recipe(MINIMAL | {"task": task})
    assert recipe.task.kind == task["kind"]
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


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
    assert (recipe.strategy.num_layers, recipe.training.learning_rate) == (1, 3e-4)


def test_an_override_mends_a_section_of_the_wrong_type(tmp_path):
    (tmp_path / "odd.toml").write_text('backbone = "minilm-l6"\ntask = "movie-snippets"\nstrategy = 5\n')
    assert load_recipe(tmp_path / "odd.toml", ["strategy=full"]).recipe.strategy.kind == "full"
    with pytest.raises(InputError, match="strategy"):
        load_recipe(tmp_path / "odd.toml")


COMPARED = MINIMAL | {
    "training": {"learning_rate": 1e-3, "epochs": 2},
    "compare": [
        {"strategy": {"kind": "lora", "rank": 4}},
        {"strategy": "full", "training": {"weight_decay": 0.0}},
        {"strategy": "full", "quantization": "nf4", "training": {"learning_rate": 2e-5}},
    ],
}


@pytest.fixture
def cells_of(tmp_path):
    """Return a function from a recipe's content to its cells, by way of a TOML file."""

    def load(content, overrides=(), only=()):
        path = tmp_path / "compare.toml"
        lines = [f"{key} = {_toml(value)}" for key, value in content.items()]
        path.write_text("\n".join(lines), encoding="utf-8")
        return load_recipe(path, overrides, only).cells

    return load


def _toml(value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {_toml(inner)}' for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def test_each_compare_table_is_laid_over_the_recipe(cells_of):
    lora, full, impossible = cells_of(COMPARED)
    assert (lora.recipe.strategy.rank, lora.recipe.training.learning_rate) == (4, 1e-3)
    assert full.recipe.training.learning_rate == 5e-5, "another kind brings its own rate"
    assert (full.recipe.training.weight_decay, full.recipe.training.epochs) == (0.0, 2)
    assert impossible.recipe.training.learning_rate == 2e-5, "unless the overlay names one"
    assert "quantised weights have no gradients" in impossible.refusal


def test_a_grid_multiplies_and_an_override_wins(cells_of):
    grid = {"quantization": ["none", "nf4"], "training": {"batch_size": [8, 16]}}
    cells = cells_of(COMPARED | {"compare": COMPARED["compare"][:1], "grid": grid})
    points = [(str(cell.recipe.quantization), cell.recipe.training.batch_size) for cell in cells]
    assert points == [("none", 8), ("none", 16), ("nf4", 8), ("nf4", 16)]
    overridden = cells_of(MINIMAL | {"grid": grid}, ["quantization=int8", "training.batch_size=4"])
    assert [(str(cell.recipe.quantization), cell.recipe.training.batch_size) for cell in overridden] == [("int8", 4)]
    kinds = cells_of(MINIMAL | {"grid": {"strategy": ["lora", "full"]}})
    assert [(one.recipe.strategy.kind, one.recipe.training.learning_rate) for one in kinds] == [
        ("lora", 5e-4),
        ("full", 5e-5),
    ]
    given = {"strategy": "lora", "training": {"learning_rate": 1e-4}}
    kinds = cells_of(MINIMAL | given | {"grid": {"strategy": ["lora", {"kind": "top_layers", "num_layers": 1}]}})
    assert [(one.recipe.strategy.kind, one.recipe.training.learning_rate) for one in kinds] == [
        ("lora", 1e-4),
        ("top_layers", 3e-4),
    ], "written as a table it is another strategy too"


def test_only_some_rows(cells_of):
    assert [cell.recipe.strategy.kind for cell in cells_of(COMPARED, only=["full"])] == ["full", "full"]
    with pytest.raises(
        InputError, match=r"--only fulll: not in this recipe \(did you mean 'full'\?\); it has lora, full"
    ):
        cells_of(COMPARED, only=["fulll"])


@pytest.mark.parametrize(
    ("change", "overrides", "message"),
    [
        ({}, ["strategy=lora"], "choose among them with --only"),
        ({}, ["training.epocs=1"], r"compare.toml: training.epocs: unknown key \(did you mean 'epochs'"),
        (
            {"compare": [{"strategy": {"kind": "lora", "rnak": 4}}, {}]},
            [],
            "compare 1 lora: strategy.rnak: unknown key",
        ),
        ({"compare": []}, [], r"compare: write it as tables: \[\[compare\]\]"),
        ({"compare": [{"grid": {}}]}, [], "compare 1: 'grid' belongs at the top"),
        ({"grid": {"training": {"epochs": 3}}}, [], "grid.training.epochs: got 3; allowed: a list"),
        ({"grid": {"seeds": [[0], [1]]}}, [], "grid.seeds: can't be an axis"),
        ({"tune": {"trials": 3}}, [], "tune.trials: got 3; input should be greater than or equal to 4"),
        ({"tune": {"search": {"strategy.rank": [4, 8]}}}, [], "search needs more than the 4 trials"),
        ({"tune": {"trials": 8, "search": {"strategy.rnak": [4]}}}, [], "tune.search: strategy.rnak: unknown key"),
        (
            {"tune": {"trials": 8, "epochs": 1, "search": {"training.epochs": [2, 3]}}},
            [],
            "every trial has tune.epochs epochs, so training.epochs can't be searched",
        ),
        ({"tune": {"trials": 8, "search": {"backbone": ["a"]}}}, [], "'backbone' can't be searched"),
        ({"training": {"lora_plus_ratio": 16}}, [], None),
    ],
)
def test_faults_of_a_comparison(change, overrides, message, cells_of):
    content = COMPARED | change
    if message is None:
        refused = [cell.refusal for cell in cells_of(content, overrides)]
        assert refused[0] is None
        assert "has no matrices A and B; it goes with lora" in refused[1]
        return
    with pytest.raises(InputError, match=message):
        cells_of(content, overrides)


def test_what_a_search_may_draw_must_go_together(cells_of):
    search = {"trials": 8, "search": {"training.gradient_checkpointing": [False, True]}}
    with pytest.raises(RefusedError, match=r"tune.search: training.gradient_checkpointing: does not go with"):
        cells_of(MINIMAL | {"strategy": "prefix_tuning", "tune": search})
    sizes = {"trials": 8, "search": {"strategy.num_virtual_tokens": [10, 20]}}
    checkpointed = {"strategy": "prefix_tuning", "training": {"gradient_checkpointing": True}, "tune": sizes}
    with pytest.raises(RefusedError) as error:
        cells_of(MINIMAL | checkpointed)
    assert "tune.search" not in str(error.value), "it is the recipe's own"


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


def rates(cells):
    return [(cell.recipe.strategy.kind, cell.recipe.training.learning_rate) for cell in cells]


def test_a_rate_that_is_given_is_not_lost(cells_of):
    base = {"backbone": "minilm-l6", "task": "movie-snippets", "training": {"learning_rate": 1e-3}}
    compared = cells_of(base | {"compare": [{"strategy": "full"}, {"strategy": "lora"}]})
    assert rates(compared) == [("full", 1e-3), ("lora", 1e-3)], "no other strategy was there before"
    grid = {"training": {"learning_rate": [1e-3, 1e-4]}, "strategy": ["lora", "full"]}
    assert len(rates(cells_of(MINIMAL | {"grid": grid}))) == 4
    told = cells_of(MINIMAL | {"grid": {"strategy": ["lora", "full"]}}, ["training.learning_rate=0.5"])
    assert rates(told) == [("lora", 0.5), ("full", 0.5)]
    stored = cells_of(MINIMAL | {"grid": {"quantization": ["none", "int8"]}}, ["quantization.kind=nf4"])
    assert [str(cell.recipe.quantization) for cell in stored] == ["nf4"]


def test_rows_that_mean_the_same_are_one(cells_of):
    assert len(cells_of(MINIMAL | {"compare": [{"strategy": "lora"}, {"strategy": {"kind": "lora", "rank": 8}}]})) == 1


@pytest.mark.parametrize("own", [{"trials": 12}, {"epochs": 1}, {"prune": False}])
def test_rows_are_searched_alike(own, cells_of):
    rows = [{"strategy": "full"}, {"strategy": "lora", "tune": own}]
    for tune in ({}, {"tune": {"trials": 5}}):
        with pytest.raises(InputError, match="no fair comparison; write"):
            cells_of(MINIMAL | tune | {"compare": rows})
    more = [{"strategy": "full"}, {"strategy": "lora", "tune": {"search": {"strategy.rank": [4, 8]}}}]
    assert len(cells_of(MINIMAL | {"tune": {"trials": 8}, "compare": more})) == 2


def test_rows_of_one_strategy_are_told_apart_by_what_differs(cells_of):
    """As LoRA+ is from LoRA in recipes/compare_sst2.toml."""
    rows = [{"strategy": "lora"}, {"strategy": "lora", "training": {"lora_plus_ratio": 16}}, {"strategy": "full"}]
    assert told_apart(cells_of(MINIMAL | {"compare": rows})) == ["", "training.lora_plus_ratio=16.0", ""]
    grid = MINIMAL | {"strategy": "lora", "grid": {"training.batch_size": [16, 32]}}
    assert told_apart(cells_of(grid)) == ["training.batch_size=16", "training.batch_size=32"]
    cells = load_recipe(ROOT / "recipes" / "compare_sst2.toml").cells
    shown = [
        (cell.recipe.strategy.kind, cell.recipe.strategy.describe(), str(cell.recipe.quantization), told)
        for cell, told in zip(cells, told_apart(cells), strict=True)
    ]
    assert len(set(shown)) == len(shown)


def told_apart(cells):
    return distinctions([cell.recipe for cell in cells])
