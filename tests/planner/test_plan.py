"""`pewb plan`: what it says of a recipe, on any machine, with nothing but the architecture."""

import importlib.util
import json
import sys

import pytest
import torch
from typer.testing import CliRunner

from pewb import assembly
from pewb.assets import backbones
from pewb.cli import app
from pewb.errors import InputError, RefusedError
from pewb.planner import curve
from pewb.planner.gpus import custom_gpu
from pewb.planner.plan import plan
from pewb.planner.simulation import Simulation
from pewb.planner.target import choose_target, gpu_target
from pewb.recipe import DeviceSection, load_recipe
from pewb.strategies.lora import Lora
from tests.planner.real_step import config_of, make_small_backbone
from tests.test_recipe import ROOT

GIB = 2**30


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PEWB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a config.json, and nothing else."""
    made = make_small_backbone("llama", tmp_path_factory.mktemp("made"))
    bare = tmp_path_factory.mktemp("bare")
    (bare / "config.json").write_text((made / "config.json").read_text())
    assert config_of(bare)["model_type"] == "llama"
    return bare


def recipe(tmp_path, folder, text='strategy = "lora"'):
    path = tmp_path / "recipe.toml"
    path.write_text(f'backbone = "{folder}"\ntask = {{ kind = "causal_lm" }}\n{text}\n')
    return path


def planned(path, *overrides, memory="8GiB"):
    return plan(load_recipe(path, overrides), choose_target(DeviceSection(), memory=memory))


def invoke(*arguments):
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def test_one_row_prints_one_document(tmp_path, folder):
    result = invoke(recipe(tmp_path, folder), "--gpu", "rtx-4090", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    keys = {"estimate", "parameters", "fits", "largest_micro_batch", "confidence", "seconds"}
    assert keys <= document.keys()
    train = document["estimate"]["train"]
    assert {"peak_allocated_bytes", "peak_reserved_bytes", "by_category", "at"} <= train.keys()
    assert sum(train["by_category"].values()) == train["peak_allocated_bytes"] <= train["peak_reserved_bytes"]
    assert document["estimate"]["evaluation"]["peak_allocated_bytes"] > 0
    assert (document["fits"], document["largest_micro_batch"], document["confidence"]) == ("yes", 32, "high")
    assert document["device"] == "rtx-4090"


def test_several_rows_print_a_plan_each(tmp_path, folder):
    text = 'strategy = "lora"\n[grid]\nquantization = ["none", "nf4", "int8"]\n'
    result = invoke(recipe(tmp_path, folder, text), "--gpu-memory", "8GiB", "--json")
    plans = json.loads(result.stdout)["plans"]
    assert [one["quantization"] for one in plans] == ["none", "nf4", "int8"]
    assert [one["confidence"] for one in plans] == ["high", "high", "low"]
    assert "outliers" in plans[2]["doubts"][0]


def test_a_refused_row_says_why_among_others_and_is_an_error_alone(tmp_path, folder):
    text = '[[compare]]\nstrategy = "full"\nquantization = "nf4"\n[[compare]]\nstrategy = "lora"\n'
    refused, other = planned(recipe(tmp_path, folder, text))
    assert refused.estimate is None
    assert "quantised weights have no gradients" in refused.refusal
    assert other.estimate.fits == "yes"
    with pytest.raises(RefusedError, match="bias"):
        planned(recipe(tmp_path, folder, 'strategy = "bitfit"'))


def test_the_answer_follows_the_memory(tmp_path, folder):
    path = recipe(tmp_path, folder)
    settings = ("training.batch_size=16", "training.max_tokens=128")
    [ample] = planned(path, *settings)
    needed = ample.estimate.train.reserved_bytes
    allowance = custom_gpu(8 * GIB).memory_bytes - custom_gpu(8 * GIB).usable_bytes
    fits = {}
    for share in (0.3, 0.5, 0.97, 1.2):
        [one] = planned(path, *settings, "training.micro_batch_size=16", memory=str(int(needed * share) + allowance))
        fits[share] = one.estimate.fits
    assert fits == {0.3: "no", 0.5: "no", 0.97: "borderline", 1.2: "yes"}
    [half] = planned(path, *settings, memory=str(int(needed * 0.75) + allowance))
    assert (half.estimate.largest_micro_batch, half.estimate.micro_batch_size, half.estimate.fits) == (8, 8, "yes")
    [none] = planned(path, *settings, memory=str(allowance + 2**20))
    assert (none.estimate.largest_micro_batch, none.estimate.fits) == (None, "no")


def test_what_a_setting_costs_or_saves(tmp_path, folder):
    path = recipe(tmp_path, folder)

    def peak(*overrides):
        [one] = planned(path, "training.max_tokens=64", *overrides)
        return one.estimate.train.allocated_bytes

    plain = peak()
    assert peak("training.gradient_checkpointing=true") < plain
    assert peak("training.micro_batch_size=4") < plain
    assert peak("training.max_tokens=128") > plain
    assert peak("strategy=full") > plain
    assert peak("strategy=full", "training.optimizer=sgd") < peak("strategy=full")
    assert peak("strategy=full", "training.optimizer=adamw_8bit") < peak("strategy=full")
    assert peak("strategy=full", "training.optimizer=paged_adamw_8bit") < peak("strategy=full")
    assert peak("training.precision=fp32") > plain
    assert peak("quantization=nf4") != plain


def test_an_estimate_is_read_from_the_cache(tmp_path, folder, monkeypatch):
    path = recipe(tmp_path, folder)
    [first] = planned(path)
    monkeypatch.setattr("pewb.planner.curve.simulation_of", lambda *_: pytest.fail("simulated again"))
    [again] = planned(path)
    assert again.estimate == first.estimate
    with pytest.raises(pytest.fail.Exception):
        planned(path, "training.max_tokens=64")


def test_a_changed_strategy_of_a_plug_in_is_simulated_again(tmp_path, monkeypatch):
    for text in ("def scale(): return 1", "def scale(): return 2"):
        module = tmp_path / "plugged_in.py"
        module.write_text(f"from pewb.strategies.lora import Lora\n{text}\nclass Mine(Lora):\n    pass\n")
        spec = importlib.util.spec_from_file_location("plugged_in", module)
        made = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "plugged_in", made)
        spec.loader.exec_module(made)
        assert text in curve._source(made.Mine)
    assert curve._source(Lora) == ""


def test_each_row_has_the_memory_that_it_is_given(tmp_path, folder):
    text = '[[compare]]\nstrategy = "lora"\n[[compare]]\nstrategy = "lora"\ndevice = { memory = "100KiB" }\n'
    path = recipe(tmp_path, folder, text)
    assert [one.estimate.fits for one in planned(path)] == ["yes", "no"]
    result = invoke(path, "--gpu-memory", "8GiB")
    assert "GiB for a training" in result.output
    assert "no (100.0 KiB)" in result.output


def test_a_search_ends_at_the_largest_that_fits(tmp_path, folder, monkeypatch):
    asked = []
    real = Simulation.train
    monkeypatch.setattr(
        Simulation, "train", lambda self, size, limit=None: asked.append(size) or real(self, size, limit)
    )
    path = recipe(tmp_path, folder)
    [one] = planned(path, "training.batch_size=64", "training.max_tokens=128", memory="700MiB")
    assert asked == [64, 32, 16, 8, 4, 2, 1][: asked.index(one.estimate.largest_micro_batch) + 1]
    assert 1 < one.estimate.largest_micro_batch < 64
    asked.clear()
    [again] = planned(path, "training.batch_size=64", "training.max_tokens=128", memory="700MiB")
    assert (asked, again.estimate) == ([], one.estimate)


@pytest.mark.parametrize(("content", "told"), [({"model_type": "lama"}, "did you mean 'llama'"), ({}, "no model_type")])
def test_an_architecture_that_nobody_knows(tmp_path, content, told):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=told):
        planned(recipe(tmp_path, tmp_path))


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_another_setting_of_the_allocator_is_told(tmp_path, folder, monkeypatch, name):
    monkeypatch.setenv(name, "max_split_size_mb:128")
    assert any(f"{name}=max_split_size_mb:128 is set" in told for told in planned(recipe(tmp_path, folder))[0].notices)
    monkeypatch.setenv(name, "expandable_segments:True")
    assert planned(recipe(tmp_path, folder))[0].notices == []


def test_what_is_assumed_is_printed(tmp_path, folder):
    text = invoke(recipe(tmp_path, folder), "--gpu", "t4", "--explain").output
    for part in ("attention by the kernels", "autocast as PyTorch defines it for cuda", "CUDA context", "borderline"):
        assert part in " ".join(text.split())


def test_a_gpu_without_bf16_takes_fp16(tmp_path, folder):
    [one] = plan(load_recipe(recipe(tmp_path, folder)), choose_target(DeviceSection(), name="t4"))
    assert one.estimate.facts.precision == "fp16"


def test_without_a_gpu_the_plan_is_for_this_machine(tmp_path, folder):
    text = 'strategy = "lora"\n[device]\nkind = "cpu"\nmemory = "1GiB"\n'
    document = json.loads(invoke(recipe(tmp_path, folder, text), "--json").stdout)
    assert document["memory_bytes"] == GIB
    assert document["estimate"]["train"]["peak_reserved_bytes"] is None


def test_any_peft_configuration(tmp_path, folder):
    text = '[strategy]\nkind = "peft"\nconfig = { peft_type = "BOFT", boft_block_size = 4, target_modules = ["query"] }'
    [one] = planned(recipe(tmp_path, folder, text))
    assert one.estimate.fits == "yes"


def test_classes_that_nobody_named_are_said_to_be_assumed(tmp_path, folder):
    path = tmp_path / "recipe.toml"
    path.write_text(f'backbone = "{folder}"\ntask = {{ kind = "text_classification" }}\nstrategy = "lora"\n')
    [one] = planned(path)
    assert "two are assumed" in one.notices[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--gpu", "rtx-4909"], "did you mean 'rtx-4090'"),
        (["--gpu-memory", "8 apples"], "not a size"),
        (["--gpu", "t4", "--gpu-memory", "8GiB"], "give one of the two"),
        (["--gpu", "t4", "--set", "backbone=llama-3.1-8bb"], "llama-3.1-8b"),
        (["--gpu", "t4", "--set", 'strategy.targets=["quary"]'], "did you mean 'query'"),
        (["--gpu", "t4", "--set", "strategy={ kind = 'peft', config = { peft_type = 'LORAX' } }"], "LORA"),
    ],
)
def test_bad_input_is_one_message(tmp_path, folder, arguments, told):
    from pewb.cli import main

    path = recipe(tmp_path, folder)
    result = CliRunner().invoke(app, ["plan", str(path), *arguments])
    assert isinstance(result.exception, InputError)
    assert told in str(result.exception)
    assert callable(main)


def test_an_architecture_that_nobody_can_build_is_one_message(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(InputError, match="no_such_model"):
        planned(recipe(tmp_path, tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("t5-small", "llama-3.1-8b", "gemma-2-2b") else pytest.mark.slow)
        for name, entry in backbones().items()
        if entry.config
    ],
)
def test_every_catalogued_architecture_can_be_planned(tmp_path, name):
    entry = backbones()[name]
    family = {"base": "text_classification", "causal_lm": "causal_lm", "seq2seq_lm": "seq2seq"}[entry.parameters_of]
    path = tmp_path / "recipe.toml"
    path.write_text(f'backbone = "{name}"\ntask = {{ kind = "{family}" }}\nstrategy = "lora"\n')
    [one] = planned(path, "training.max_tokens=64", "training.batch_size=2", "quantization=nf4", memory="80GiB")
    assert one.estimate.fits == "yes"
    assert one.estimate.facts.parameters.total > entry.parameters


def test_the_shipped_recipe_of_an_8b_model_fits_12_gib():
    [one] = plan(load_recipe(ROOT / "recipes" / "qlora_llama3_8b.toml"), gpu_target(custom_gpu(12 * GIB)))
    assert one.estimate.fits == "yes"
    assert one.estimate.facts.parameters.trainable == 41_943_040


def test_quantised_layers_count_their_operations_too(tmp_path, folder):
    text = 'strategy = "lora"\n[grid]\nquantization = ["none", "nf4", "int8"]\n'
    plain, *quantised = [one.estimate.step_flops for one in planned(recipe(tmp_path, folder, text))]
    assert quantised == pytest.approx([plain, plain], rel=0.02)


@pytest.mark.parametrize("settings", [["backbone=t5-small"], ["backbone=minilm-l6", "strategy.variant=loftq"]])
def test_what_asks_for_numbers_is_answered(settings):
    """T5's classifier counts end tokens and looks for the last; LoftQ looks for the weights that lose least."""
    loaded = load_recipe(ROOT / "recipes" / "lora_sst2.toml", [*settings, "training.max_tokens=32"])
    [one] = plan(loaded, choose_target(DeviceSection(), name="t4"))
    assert (one.estimate.fits, one.estimate.confidence) == ("yes", "high")


def test_what_the_simulation_cannot_do_is_refused_as_what_cannot_be_planned(tmp_path, folder, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(assembly, "insert", fail)
    with pytest.raises(RefusedError, match=r"can't be planned: RuntimeError: no such kernel"):
        planned(recipe(tmp_path, folder))


def test_bf16_on_a_gpu_that_has_none_is_doubted(tmp_path, folder):
    path = recipe(tmp_path, folder)
    [one] = plan(load_recipe(path, ["training.precision=bf16"]), choose_target(DeviceSection(), name="t4"))
    assert (one.estimate.confidence, one.estimate.facts.precision) == ("low", "bf16")


def test_what_is_not_simulated_of_a_training_is_doubted(tmp_path, folder):
    [one] = planned(recipe(tmp_path, folder), "training.packing=true", "training.compile=true")
    assert [doubt.partition(":")[0] for doubt in one.estimate.facts.doubts] == ["packing", "compile"]


def test_the_random_state_is_left_alone(tmp_path, folder):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    planned(recipe(tmp_path, folder))
    assert torch.equal(torch.rand(3), expected)
