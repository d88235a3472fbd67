"""What is chosen: the cheapest row that fits and can't be told apart from the best that fits, and nothing without evidence."""

import csv
import itertools
import json
import shutil

import pytest

import pewb
from pewb.choosing import LADDER, Budgets, choose, targets_of
from pewb.choosing.names import names_of
from pewb.choosing.written import write_recipe
from pewb.errors import InputError
from pewb.recipe import DeviceSection, load_recipe
from pewb.record import read_records
from pewb.screen.choices import print_choice
from tests.choosing.conftest import NEEDS
from tests.test_recipe import ROOT

BASICS = ROOT / "recipes" / "compare_basics_sst2.toml"
MINILM = """\
backbone = "minilm-l6"
task = "movie-snippets"
training = { batch_size = 32, max_tokens = 128, schedule = "cosine" }
seeds = [0, 1]
tune = { trials = 4 }
"""


def chosen_at(*memory, recipe=BASICS, **arguments):
    return choose(load_recipe(recipe), targets_of([DeviceSection()], None, memory), **arguments)


def kinds(ranking, **wanted):
    return [
        entry.candidate.cell.recipe.strategy.kind
        for entry in ranking.entries
        if all(getattr(entry, key) == value for key, value in wanted.items())
    ]


def test_the_cheapest_of_those_that_cant_be_told_apart_is_chosen(simulated_as):
    found = chosen_at("8GiB")
    entries = {entry.candidate.name: entry for entry in found.ranking.entries}
    alike = [entry for entry in entries.values() if entry.standing and entry.standing.place in ("best", "alike")]
    assert entries["full"] in alike
    assert entries["head_only"].standing.place == "behind", "cheaper, and told apart"
    assert found.choice is min(alike, key=lambda entry: entry.candidate.needs.whole_batch_bytes)
    assert found.choice.candidate.name == "top_layers"
    assert found.choice.setting.micro_batch_size == 32
    assert found.ranking.reason.startswith(
        "top_layers with micro-batch 32: 0.852 on movie-snippets, can't be told apart from full's 0.865 (p 0."
    )


def test_a_choice_that_is_not_the_best_names_the_best_and_the_p_value(simulated_as):
    simulated_as(NEEDS | {"top_layers": (2000, 1, 3_697_538)})
    found = chosen_at("8GiB")
    assert found.choice.candidate.name == "lora", "of equal memory the one with the fewest trained parameters"
    assert "can't be told apart from full's 0.865 (p 0." in found.ranking.reason
    assert found.ranking.reason.endswith("376.0 MiB of 8.00 GiB")


def test_a_row_that_did_worse_than_one_that_is_behind_is_passed_over(simulated_as):
    """A prompt's two seeds on dialogue are so far apart that they can't be told apart from anything, and it is the cheapest."""
    simulated_as(
        dict.fromkeys(("full", "lora", "bottleneck_adapter", "top_layers", "ia3"), (900, 1, 1))
        | {"prompt_tuning": (90, 1, 1)}
    )
    found = chosen_at("8GiB", recipe=ROOT / "recipes" / "compare_dialogue_smollm2.toml")
    entries = {entry.candidate.name: entry for entry in found.ranking.entries}
    assert entries["prompt_tuning"].standing.place == "alike"
    assert entries["bottleneck_adapter"].standing.place == "behind"
    assert found.choice.candidate.name == "full"
    assert found.ranking.reason.endswith(
        "; prompt_tuning is passed over: worse on average than bottleneck_adapter, which is behind"
    )


def test_memory_that_every_row_names_is_what_a_plan_and_a_run_take_it_for():
    section = DeviceSection(kind="cpu", memory="1GiB")
    assert [target.memory_bytes for target in targets_of([section, section])] == [2**30]
    assert len(targets_of([section, DeviceSection(kind="cpu")])) == len(LADDER)
    assert targets_of([section], None, ["8GiB"])[0].memory_bytes > 7 * 2**30


def test_what_does_not_fit_is_no_rival(simulated_as):
    simulated_as(NEEDS | {"full": (30_000, 100, 22_700_000), "top_layers": (30_000, 100, 3_697_538)})
    found = chosen_at("8GiB")
    assert kinds(found.ranking, fits="no") == ["full", "top_layers"]
    assert found.choice.candidate.name == "lora"
    assert all(entry.standing is None for entry in found.ranking.entries if entry.fits == "no")
    best = next(entry for entry in found.ranking.entries if entry.standing and entry.standing.place == "best")
    assert best.fits == "yes"


def test_a_borderline_fit_is_taken_only_if_nothing_that_fits_was_measured(simulated_as):
    simulated_as(borderline=("top_layers",))
    found = chosen_at("8GiB")
    assert found.choice.candidate.name != "top_layers"
    assert kinds(found.ranking, fits="borderline") == ["top_layers"]
    simulated_as(borderline=tuple(NEEDS))
    found = chosen_at("8GiB")
    assert found.choice.candidate.name == "top_layers"
    assert "borderline" in found.ranking.reason


def test_checkpointing_is_taken_where_nothing_fits_without(simulated_as, tmp_path):
    simulated_as(NEEDS | {"full": (6_500, 2_000, 22_700_000)})
    (tmp_path / "recipe.toml").write_text(MINILM + 'strategy = "full"\n')
    found = chosen_at("8GiB", recipe=tmp_path / "recipe.toml")
    assert (found.choice.setting.gradient_checkpointing, found.choice.setting.micro_batch_size) == (True, 1)
    assert "with micro-batch 1 and gradient checkpointing" in found.ranking.reason


def test_the_ladder_is_monotone(simulated_as):
    simulated_as({kind: (base * 30, each * 10, count) for kind, (base, each, count) in NEEDS.items()})
    found = chosen_at()
    assert [ranking.memory_bytes for ranking in found.rankings] == [int(size[:-3]) * 2**30 for size in LADDER]
    fitting = [set(kinds(ranking, fits="yes")) for ranking in found.rankings]
    assert all(one <= other for one, other in itertools.pairwise(fitting))
    assert fitting[0] < fitting[-1]
    best = [
        max(entry.value for entry in ranking.entries if entry.fits == "yes" and entry.value is not None)
        for ranking in found.rankings
    ]
    assert best == sorted(best)
    document = found.to_json()
    assert [step["memory_bytes"] for step in document["ladder"]] == [one.memory_bytes for one in found.rankings]
    assert document["choice"] == document["ladder"][-1]["choice"]


def test_budgets_besides_memory(simulated_as):
    few = chosen_at("8GiB", budgets=Budgets(max_trainable=300_000))
    assert few.choice.candidate.name == "lora"
    assert next(one for one in few.ranking.entries if one.candidate.name == "full").excluded.startswith(
        "trains 22,700,000"
    )
    short = chosen_at("8GiB", budgets=Budgets(max_train_seconds=100))
    assert short.choice.candidate.support.row.time.train_seconds <= 100
    assert any("more than 1 min 40 s" in (entry.excluded or "") for entry in short.ranking.entries)
    none = chosen_at("8GiB", budgets=Budgets(max_trainable=1))
    assert none.choice is None
    assert "--max-trainable" in none.ranking.reason


def test_without_evidence_nothing_is_chosen_and_what_was_measured_elsewhere_is_shown(simulated_as, tmp_path):
    (tmp_path / "recipe.toml").write_text(
        MINILM.replace("minilm-l6", "roberta-base") + '[[compare]]\nstrategy = "full"\n[[compare]]\nstrategy = "lora"\n'
    )
    found = chosen_at("8GiB", recipe=tmp_path / "recipe.toml")
    assert found.choice is None
    assert found.ranking.reason.startswith("no evidence: lora and full fit; run the recipe, or give --probe")
    assert found.elsewhere
    assert {reason for one in found.elsewhere for reason in one.because} >= {"another backbone: minilm-l6"}
    assert all(any("another backbone: " in reason for reason in one.because) for one in found.elsewhere)
    assert {one.row.strategy for one in found.elsewhere} == {"full", "lora"}
    assert all(entry.candidate.support is None and entry.value is None for entry in found.ranking.entries)


def test_nothing_fits(simulated_as):
    simulated_as(dict.fromkeys(NEEDS, (90000, 1, 1)))
    found = chosen_at("8GiB")
    assert found.choice is None
    assert found.ranking.reason.startswith("nothing fits 8.00 GiB; the least is ")


def test_json_keys(simulated_as):
    document = json.loads(json.dumps(chosen_at("8GiB").to_json()))
    assert {"ranking", "choice", "reason", "ladder"} <= set(document)
    assert document["ladder"] is None
    assert document["choice"] in document["ranking"]
    assert {"name", "backbone", "strategy", "quantization", "fits", "setting", "evidence", "against_best"} <= set(
        document["choice"]
    )


def test_the_written_recipe_is_the_choice(simulated_as, tmp_path):
    found = chosen_at("8GiB")
    path = write_recipe(found.choice, found.ranking.reason, tmp_path / "chosen.toml")
    recipe = load_recipe(path).recipe
    asked = found.choice.candidate.cell.recipe
    assert (recipe.backbone, recipe.task, recipe.strategy) == (asked.backbone, asked.task, asked.strategy)
    assert recipe.training.micro_batch_size == 32
    assert recipe.training.gradient_checkpointing is False
    assert recipe.tune is None, "the search is not done twice:"
    assert recipe.training.learning_rate == 6.5e-4
    assert path.read_text().startswith(
        "# Written by pewb choose. top_layers with micro-batch 32: 0.852 on movie-snippets, can't be told apart "
    )
    with pytest.raises(InputError, match="already there"):
        write_recipe(found.choice, "", path)


def test_the_public_name(simulated_as):
    assert pewb.choose is choose
    assert callable(pewb.plan)


def test_rows_that_look_alike_are_told_apart_and_a_point_of_a_grid_has_its_own_evidence(simulated_as, tmp_path):
    (tmp_path / "recipe.toml").write_text(
        MINILM.replace("tune = { trials = 4 }", "")
        + 'strategy = "lora"\n[grid]\n"training.learning_rate" = [1e-3, 2e-3]\n"training.lora_plus_ratio" = [1, 16]\n'
    )
    found = chosen_at("8GiB", recipe=tmp_path / "recipe.toml")
    names = [entry.candidate.name for entry in found.ranking.entries]
    assert len(set(names)) == 4
    assert found.choice is None, "LoRA+ is another method"
    (tmp_path / "other.toml").write_text(
        MINILM.replace("tune = { trials = 4 }", "")
        + 'strategy = "lora"\n[grid]\n"training.learning_rate" = [1e-3, 2e-3]\n'
    )
    found = chosen_at("8GiB", recipe=tmp_path / "other.toml")
    measured = {entry.candidate.name: entry.value for entry in found.ranking.entries}
    assert measured["lora learning rate 0.002"] is None
    assert measured["lora learning rate 0.001"] == pytest.approx(0.838, abs=1e-3)


def test_evidence_of_another_of_the_recipes_backbones_is_not_mixed_in(simulated_as, tmp_path):
    """The last name is the one that the stand-in plans."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        BASICS.read_text().replace('backbone = "minilm-l6"', 'backbone = ["minilm-l6", "bert-base"]'), encoding="utf-8"
    )
    found = chosen_at("8GiB", recipe=recipe)
    assert found.choice is None
    assert all(entry.candidate.support is None for entry in found.ranking.entries)
    assert any("another backbone: minilm-l6" in one.because for one in found.elsewhere)


def collapsed(results, kind):
    """Copy the evidence into `results`, where the last seed of a tuned strategy now predicts one class for every example."""
    results.mkdir()
    for path in (ROOT / "results").glob("*-movie-snippets-*"):
        shutil.copy(path, results)
    tuned = [
        one
        for one in read_records(results)
        if one.strategy == kind and one.tuning and not one.recipe_resolved["limit"]["train"]
    ]
    last = max(tuned, key=lambda one: (one.numerics_version, one.seed))
    path = results / last.predictions
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        line["predicted"] = "positive"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    share = sum(line["label"] == "positive" for line in lines) / len(lines)
    document = json.loads((results / f"{last.run}.json").read_text())
    document["metrics"]["accuracy"] |= {"value": share, "low": share - 0.03, "high": share + 0.03}
    document["warnings"] = ["predicts 'positive' for every test example"]
    (results / f"{last.run}.json").write_text(json.dumps(document))


def test_a_row_of_which_a_seed_learned_nothing_is_not_chosen_though_it_cant_be_told_apart(
    simulated_as, tmp_path, capsys
):
    collapsed(tmp_path / "results", "top_layers")
    found = chosen_at("8GiB", results=tmp_path / "results", with_shipped=False)
    entry = next(one for one in found.ranking.entries if one.candidate.name == "top_layers")
    assert entry.value < 0.75
    assert entry.standing.place == "alike", "seeds so far apart are unlike nothing"
    assert found.choice.candidate.name == "lora", "top_layers would be the cheapest"
    assert found.ranking.reason.endswith("; top_layers is passed over: of several seeds one learned nothing")
    simulated_as(dict.fromkeys(NEEDS, (30_000, 1, 1)) | {"top_layers": NEEDS["top_layers"]})
    found = chosen_at("8GiB", "16GiB", results=tmp_path / "results", with_shipped=False)
    print_choice(found)
    told = " ".join(capsys.readouterr().out.split())
    assert "top_layers: when measured: predicts 'positive' for every test example (1 of" in told, "the ladder warns too"


def test_how_long_a_row_trains_must_be_measured_to_be_within_a_budget(simulated_as, tmp_path):
    (tmp_path / "recipe.toml").write_text(MINILM.replace("minilm-l6", "roberta-base") + 'strategy = "lora"\n')
    found = chosen_at("8GiB", recipe=tmp_path / "recipe.toml", budgets=Budgets(max_train_seconds=60))
    assert found.choice is None
    assert found.ranking.reason == (
        "no evidence: how long what fits trains was not measured; run the recipe, or give --probe MINUTES, to choose"
    )


def test_a_size_in_other_words_is_the_same_size():
    assert len(targets_of([DeviceSection()], None, ["1GiB", "1024MiB", "2GiB"])) == 2
    with pytest.raises(InputError, match="no GPU ''"):
        targets_of([DeviceSection()], "")


def test_where_nothing_fits_the_least_is_named_at_its_own_setting(simulated_as):
    reason = chosen_at("600MiB").ranking.reason
    least = min(base + each / 2 for base, each, _ in NEEDS.values())
    assert f"the least is head_only, {least:.1f} MiB with one example at a time and gradient checkpointing" in reason


def test_rows_that_differ_in_the_number_of_examples_are_named_by_it():
    cells = load_recipe(ROOT / "recipes" / "sample_sizes_movie_snippets.toml").cells
    names = names_of(cells, ["minilm-l6"] * len(cells))
    assert names[:4] == [
        "full limit.train 200",
        "full limit.train 1000",
        "lora limit.train 200",
        "lora limit.train 1000",
    ]


def test_peft_is_named_with_its_method():
    cells = load_recipe(ROOT / "recipes" / "compare_sst2.toml").cells
    assert names_of(cells, ["minilm-l6"] * len(cells))[-1] == "peft FOURIERFT"
