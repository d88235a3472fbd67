"""Several runs from one recipe: searched, resumed, refused and interrupted, as a user sees it."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from pewb.leaderboard import Leaderboard
from pewb.recipe import Tune
from pewb.record import read_records
from pewb.runner.tuning import next_rate, rates_around
from tests.runner.conftest import pewb, write_recipe

pytestmark = pytest.mark.timeout(900)  # some thirty processes, one after another

COMPARISON = """\
backbone = "backbones/tiny"
task = { kind = "text_classification", train = "train.csv", validation = "validation.csv", test = "test.csv", text = "sentence" }
seeds = [0, 1]
training = { epochs = 2, batch_size = 8, max_tokens = 16, precision = "fp32" }
device = { kind = "cpu", threads = 1 }
tune = { epochs = 1, extensions = 1 }

[[compare]]
strategy = "head_only"

[[compare]]
strategy = "full"
quantization = "nf4"

[[compare]]
strategy = { kind = "lora", variant = "loftq" }
"""


def done(process) -> str:
    out, err = process.communicate()
    assert "Traceback" not in err, err
    return out + err


@pytest.fixture(scope="module")
def compared(tiny_backbone, tmp_path_factory):
    """The comparison, interrupted, killed twice with everything that belongs to it, and then run to its end."""
    folder = tmp_path_factory.mktemp("compared")
    write_recipe(folder, tiny_backbone("bert")).write_text(COMPARISON, encoding="utf-8")
    _interrupt_at(folder, "trial 1, lr .* training")
    for line_to_kill_at in ("trial 3, lr .* training", "head_only, seed 1|run head_only.*seed1"):
        _kill_at(folder, line_to_kill_at)
    process = pewb(folder, "run", "recipe.toml")
    text = done(process)
    assert process.returncode == 0, text
    return folder, text


def _interrupt_at(folder: Path, pattern: str) -> None:
    process = pewb(folder, "run", "recipe.toml", "--json")
    for line in process.stderr:
        if re.match(pattern, line):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate()
    assert (process.returncode, out) == (130, ""), err
    assert "Traceback" not in err
    assert "interrupted; what was done is recorded" in err
    assert read_records(folder / "results") == [], "a trial that broke off leaves no record"
    assert (folder / "leaderboard.md").exists()


def _kill_at(folder: Path, pattern: str) -> None:
    process = pewb(folder, "run", "recipe.toml", process_group=0)
    for line in process.stderr:
        if re.match(pattern, line):
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"


def strategies(folder: Path) -> dict[tuple[str, int], "object"]:
    return {
        (record.strategy, record.seed): record
        for record in read_records(folder / "results")
        if record.status != "cancelled" and not record.is_reference
    }


def table(folder: Path) -> list[dict]:
    """Return what the leaderboard says, less what is measured anew by every run: times, memory of the process."""
    rows = Leaderboard.from_results(folder / "results").to_json()["rows"]
    kept = ("strategy", "settings", "quantization", "status", "reason", "seeds", "metrics", "baseline", "parameters")
    return [{key: row[key] for key in kept} for row in rows]


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_table(compared, tiny_backbone, tmp_path):
    killed, _ = compared
    write_recipe(tmp_path, tiny_backbone("bert")).write_text(COMPARISON, encoding="utf-8")
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.csv").write_bytes((killed / f"{name}.csv").read_bytes())
    process = pewb(tmp_path, "run", "recipe.toml", "--jobs", "2")
    text = done(process)
    assert process.returncode == 0, text
    ours, theirs = table(killed), table(tmp_path)
    assert ours == theirs
    for key, record in strategies(tmp_path).items():
        other = strategies(killed)[key]
        assert record.curves == other.curves
        assert (
            [trial.validation for trial in record.tuning.trials] == [trial.validation for trial in other.tuning.trials]
            if record.tuning
            else other.tuning is None
        )


def test_what_was_done_is_not_done_again(compared):
    folder, _ = compared
    before = sorted((folder / "results").glob("*.json"))
    process = pewb(folder, "run", "recipe.toml", "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert sorted((folder / "results").glob("*.json")) == before
    assert "its record stands; --rerun runs it again" in err
    assert not re.search(r"training \d+%", err)
    assert len(json.loads(out)["runs"]) == 6


def test_every_row_of_the_recipe_is_in_the_table_with_its_reason(compared):
    folder, _ = compared
    page = (folder / "leaderboard.md").read_text(encoding="utf-8")
    assert "quantised weights have no gradients" in page
    for (strategy, _), record in strategies(folder).items():
        assert record.status == ("success" if strategy == "head_only" else "refused"), record.reason
    assert "majority" in page
    assert "untouched" in page


def test_the_search_sees_validation_only_and_the_record_tells_it(compared):
    folder, _ = compared
    first, second = (strategies(folder)["head_only", seed] for seed in (0, 1))
    assert first.tuning == second.tuning
    trials = first.tuning.trials
    assert 4 <= len(trials) <= 5
    rates = [trial.values["training.learning_rate"] for trial in trials]
    assert max(rates[:4]) / min(rates[:4]) == pytest.approx(100, rel=0.05)
    complete = [trial for trial in trials if trial.state == "complete"]
    assert all(trial.validation <= max(one.validation for one in complete) for trial in trials)
    rate = first.tuning.chosen["training.learning_rate"]
    assert first.recipe_resolved["training"]["learning_rate"] == rate
    assert f"lr {rate:g} tuned" in first.settings


def test_a_record_is_a_recipe_that_gives_the_same_metrics(compared):
    """To the last digit, also of a run that was killed on its first attempt."""
    folder, _ = compared
    record = strategies(folder)["head_only", 1]
    process = pewb(folder, "run", f"results/{record.run}.json", "--results", "again", "--json")
    _, err = process.communicate()
    assert process.returncode == 0, err
    [again] = [one for one in read_records(folder / "again") if not one.is_reference]
    assert (again.metrics, again.curves, again.baseline) == (record.metrics, record.curves, record.baseline)
    assert again.tuning is None


def test_rates_are_spread_around_the_default_and_extended_at_an_edge():
    section = Tune(extensions=2)
    rates = rates_around(1e-3, 2, 4)
    assert sorted(rates) == [1e-4, 4.6e-4, 2.2e-3, 1e-2]
    assert next_rate(section, 1e-3, []) == rates[0]
    rising = [(rate, rate) for rate in sorted(rates)]
    assert next_rate(section, 1e-3, rising) == pytest.approx(4.6e-2, rel=0.02), "beyond the upper edge"
    falling = [(rate, -rate) for rate in sorted(rates)]
    assert next_rate(section, 1e-3, falling) == pytest.approx(2.2e-5, rel=0.03), "beyond the lower edge"
    inside = [(1e-4, 0.1), (4.6e-4, 0.9), (2.2e-3, 0.5), (1e-2, None)]
    assert next_rate(section, 1e-3, inside) is None
    further = [*rising, (4.6e-2, 1.0), (0.22, 2.0)]
    assert next_rate(section, 1e-3, further) is None, "no more extensions"
    assert next_rate(section, 1e-3, [(rate, None) for rate in rates]) is None, "every trial failed"
    assert len(rates_around(1e-3, 2, 5)) == len(set(rates_around(1e-3, 2, 5))) == 5
