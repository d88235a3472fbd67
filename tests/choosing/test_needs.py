"""How a row fits: the largest micro-batch, and checkpointing where the whole batch does not fit; each simulated once."""

from dataclasses import replace

import pytest

from pewb.choosing.needs import needs_of
from pewb.planner import curve as module
from pewb.planner.estimate import estimate
from pewb.planner.plan import question_of
from pewb.planner.target import choose_target
from pewb.recipe import Cell, DeviceSection, parse_recipe
from pewb.reporting import Silent

GIB = 2**30


@pytest.fixture
def cell(tiny_backbone):
    def make(strategy="lora", quantization="none", **training):
        content = {
            "backbone": str(tiny_backbone("bert")),
            "task": {"kind": "text_classification", "train": "a.csv", "test": "a.csv", "labels": ["a", "b"]},
            "strategy": strategy,
            "quantization": quantization,
            "training": {"batch_size": 8, "max_tokens": 32, "precision": "fp32"} | training,
        }
        return Cell(parse_recipe(content))

    return make


@pytest.fixture
def target():
    section = parse_recipe({"backbone": "minilm-l6", "task": "movie-snippets", "strategy": "lora"}).device
    return replace(choose_target(section, None, "8GiB"), memory_bytes=None)


@pytest.fixture(autouse=True)
def an_empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PEWB_CACHE", str(tmp_path / "cache"))


def test_one_simulation_answers_for_every_limit(cell, target, monkeypatch):
    made = []
    real = module.simulation_of
    monkeypatch.setattr(module, "simulation_of", lambda *arguments: made.append(1) or real(*arguments))
    row = cell()
    limits = [4 * GIB, 8 * GIB]
    found = needs_of(row, target, limits, Silent())
    assert len(made) == 1, "checkpointing is not simulated where the whole batch fits without it"
    for limit in limits:
        [setting] = found.settings[limit]
        planned = estimate(question_of(row.recipe, Silent(), []), replace(target, memory_bytes=limit))
        assert (setting.fits, setting.micro_batch_size, setting.gradient_checkpointing) == ("yes", 8, False)
        assert setting.train_bytes == planned.train.needed_bytes == found.whole_batch_bytes
        assert setting.evaluation_bytes == planned.evaluation.needed_bytes
        assert found.parameters == planned.facts.parameters
    assert needs_of(row, target, [6 * GIB], Silent()).whole_batch_bytes == found.whole_batch_bytes
    assert len(made) == 1, "plans, and choices for other sizes, read what was kept"


def test_within_less_the_micro_batch_is_halved_and_checkpointing_is_tried(cell, target):
    row = cell(max_tokens=64, batch_size=64)
    whole = needs_of(row, target, [GIB], Silent()).whole_batch_bytes
    limit = int(whole * 0.7)
    found = needs_of(row, target, [limit, 1], Silent())
    first, second = found.settings[limit]
    assert (first.fits, first.gradient_checkpointing, second.gradient_checkpointing) == ("yes", False, True)
    assert first.micro_batch_size < 64
    assert second.micro_batch_size >= first.micro_batch_size
    assert first.room_bytes > 0
    assert {setting.fits for setting in found.settings[1]} == {"no"}
    assert found.settings[1][0].micro_batch_size == 1


def test_what_the_recipe_fixes_stays(cell, target):
    found = needs_of(cell(micro_batch_size=2), target, [GIB, 1], Silent())
    assert {setting.micro_batch_size for settings in found.settings.values() for setting in settings} == {2}
    found = needs_of(cell(gradient_checkpointing=True), target, [GIB, 1], Silent())
    assert {setting.gradient_checkpointing for settings in found.settings.values() for setting in settings} == {True}


def test_a_row_has_no_more_memory_than_its_recipe_gives_it(cell, target):
    row = cell()
    tight = Cell(row.recipe.model_copy(update={"device": DeviceSection(memory="100KiB")}))
    found = needs_of(tight, target, [GIB, 2 * GIB], Silent())
    assert {setting.limit_bytes for settings in found.settings.values() for setting in settings} == {100 * 2**10}
    assert found.settings[GIB][0].fits == "no"
    assert needs_of(row, target, [GIB], Silent()).settings[GIB][0].fits == "yes"


def test_a_row_that_cant_be_says_why(cell, target):
    row = cell("full")
    found = needs_of(Cell(row.recipe, "no"), target, [GIB], Silent())
    assert (found.refusal, found.settings) == ("no", {})
