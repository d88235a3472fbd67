"""Pilots: equal steps for all that are left, the better half goes on; the test split is never read."""

import csv
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pewb.choosing import Budgets, choose, probe, targets_of
from pewb.choosing.probe import LEAST_STEPS, Probe, TimedRounds
from pewb.errors import InputError
from pewb.recipe import DeviceSection, load_recipe
from pewb.runner.process import Answer
from tests.choosing.conftest import NEEDS
from tests.conftest import SENTENCES

RECIPE = """\
backbone = "BACKBONE"
task = { kind = "text_classification", train = "train.csv", validation = "validation.csv", test = "test.csv", text = "sentence" }
training = { epochs = 2, batch_size = 8, max_tokens = 16, precision = "fp32" }
device = { kind = "cpu", threads = 1 }
"""
VALUES = {"full": 0.9, "lora": 0.8, "top_layers": 0.7, "head_only": 0.6}


def doubling(number, num_rows, seconds_per_step):
    return 2 * 2 ** (number - 1)


@pytest.fixture
def recipe(sentence_files, tiny_backbone, monkeypatch):
    """Return a function that loads a recipe that compares strategies on sentences."""
    monkeypatch.chdir(sentence_files)

    def load(*kinds):
        text = RECIPE.replace("BACKBONE", str(tiny_backbone("bert")))
        Path("recipe.toml").write_text(text + "".join(f'[[compare]]\nstrategy = "{kind}"\n' for kind in kinds))
        return load_recipe("recipe.toml")

    return load


def chosen(loaded, pilots, **arguments):
    targets = targets_of([DeviceSection()], None, ["8GiB"])
    return choose(loaded, targets, probe=pilots, with_shipped=False, **arguments)


@pytest.fixture
def responding(monkeypatch):
    """Put `respond(recipe)` in the place of the pilots' processes, and return their jobs."""

    def put(respond):
        jobs = []

        def instead(job, reporter, children, give_up):
            jobs.append(job)
            return respond(job.recipe)

        monkeypatch.setattr(probe, "try_in_process", instead)
        return jobs

    return put


def test_the_better_half_goes_on_to_pilots_twice_as_long(simulated_as, recipe, responding):
    jobs = responding(lambda one: Answer(value=VALUES[one.strategy.kind]))
    found = chosen(recipe("head_only", "full", "lora", "top_layers"), Probe(rounds=doubling))
    rounds = {}
    for job in jobs:
        assert job.is_trial, "so that no test example is read"
        rounds.setdefault(job.recipe.training.max_steps, set()).add(job.recipe.strategy.kind)
    assert rounds == {2: set(VALUES), 4: {"full", "lora"}}
    assert found.choice.candidate.name == "full"
    assert [entry.candidate.name for entry in found.ranking.entries] == ["full", "lora", "top_layers", "head_only"]
    assert "in a pilot of 4 steps, the best of the 2 that were left in round 2, of 4" in found.ranking.reason
    assert found.to_json()["choice"]["pilot"] == {"metric": "accuracy", "value": 0.9, "steps": 4, "round": 2}
    assert not Path("results").exists(), "nothing is recorded"


def test_only_what_fits_is_tried_at_its_setting(simulated_as, recipe, responding):
    simulated_as(NEEDS | {"full": (90_000, 1, 1), "lora": (7_000, 300, 1)})
    jobs = responding(lambda one: Answer(value=0.5))
    chosen(recipe("full", "lora", "head_only"), Probe(rounds=doubling))
    assert {job.recipe.strategy.kind for job in jobs} == {"lora", "head_only"}
    assert {job.recipe.training.micro_batch_size for job in jobs if job.recipe.strategy.kind == "lora"} == {2}


def test_a_pilot_that_fails_is_out_and_told(simulated_as, recipe, responding):
    responding(lambda one: Answer(reason="broke") if one.strategy.kind == "full" else Answer(value=0.5))
    found = chosen(recipe("full", "lora"), Probe(rounds=doubling))
    assert found.choice.candidate.name == "lora"
    assert "full: its pilot failed: broke" in found.notices


def test_rounds_share_the_time(monkeypatch):
    monkeypatch.setattr(probe.time, "monotonic", lambda: 0.0)
    rounds = TimedRounds(ends_at=1000.0, num_rounds=2)
    assert rounds(1, 4, 1.0) == 100, "four fifths of half the time, shared by four rows"
    assert rounds(2, 2, 1.0) == 400
    assert rounds(1, 4, 1e6) == LEAST_STEPS
    assert rounds(2, 2, 1e6) is None, "a round that would not end in time does not begin"


def test_the_first_pilot_paces_the_others(simulated_as, recipe, responding):
    def respond(one):
        time.sleep(0.01)
        return Answer(value=VALUES[one.strategy.kind])

    jobs = responding(respond)
    found = chosen(recipe("full", "lora"), Probe(minutes=1.0))
    steps = [job.recipe.training.max_steps for job in jobs]
    assert steps[0] == LEAST_STEPS
    assert steps[1] == steps[2] > LEAST_STEPS
    assert found.choice.candidate.name == "full"


def test_of_equal_pilots_the_cheapest_is_taken(simulated_as, recipe, responding):
    responding(lambda one: Answer(value=0.5))
    found = chosen(recipe("full", "lora", "head_only"), Probe(rounds=lambda number, *_: 2 if number == 1 else None))
    assert found.choice.candidate.name == "head_only"
    assert found.choice is found.ranking.entries[0]


def test_a_pilot_needs_no_measured_training_time_and_that_is_told(simulated_as, recipe, responding):
    jobs = responding(lambda one: Answer(value=VALUES[one.strategy.kind]))
    found = chosen(recipe("full", "lora"), Probe(rounds=doubling), budgets=Budgets(max_train_seconds=60))
    assert {job.recipe.strategy.kind for job in jobs} == {"full", "lora"}
    assert found.choice.candidate.name == "full"
    assert any(notice.startswith("--max-train-time does not count for full, lora") for notice in found.notices)


@pytest.mark.slow
def test_real_pilots(simulated_as, recipe):
    for name in ("train", "validation"):
        with Path(f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["sentence", "label"], *(SENTENCES * 2)])
    found = chosen(recipe("lora", "head_only"), Probe(rounds=lambda number, *_: 2 if number == 1 else None))
    document = json.loads(json.dumps(found.to_json()))
    pilots = [entry["pilot"] for entry in document["ranking"]]
    assert [(pilot["steps"], pilot["metric"], 0 <= pilot["value"] <= 1) for pilot in pilots] == [
        (2, "accuracy", True)
    ] * 2
    assert found.choice is not None


def test_pilots_need_data(simulated_as, recipe, responding):
    loaded = recipe("lora")
    task = type(loaded.recipe.task)(labels=["a", "b"])
    cells = [replace(cell, recipe=cell.recipe.model_copy(update={"task": task})) for cell in loaded.cells]
    with pytest.raises(InputError, match="train"):
        chosen(replace(loaded, cells=cells), Probe(rounds=doubling))


def test_what_runs_when_the_time_is_up_is_ended(simulated_as, recipe, monkeypatch):
    seen = []

    def instead(job, reporter, children, give_up):
        for _ in range(500):
            if children.interrupted:
                break
            time.sleep(0.01)
        seen.append(children.interrupted)
        return Answer(died=True, reason="interrupted")

    monkeypatch.setattr(probe, "try_in_process", instead)
    found = chosen(recipe("full", "lora"), Probe(minutes=0.005, rounds=doubling))
    assert seen == [True]
    assert found.choice is None
    assert any("time was up in round 1" in notice for notice in found.notices)
