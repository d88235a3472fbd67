"""`pewb compare`: which row a few words name, what is refused, and what is said."""

import csv
import json

import pytest

from pewb.errors import InputError
from pewb.leaderboard import Leaderboard, compare
from pewb.leaderboard.cells import p_value
from pewb.record import Metric, Time, write_record

NUM = 200


@pytest.fixture
def results(make_record, tmp_path):
    """Return a function that writes a run which is right on the first examples, and returns its name."""

    def write(name, num_right, **fields):
        accuracy = Metric(value=num_right / NUM, low=0.1, high=0.9)
        record = make_record(
            strategy=name, metrics={"accuracy": accuracy}, data=_data(**fields.pop("facts", {})), **fields
        )
        record = record.model_copy(update={"predictions": f"{record.run}.predictions.csv"})
        with (tmp_path / record.predictions).open("w", newline="") as file:
            rows = [[f"{place:04d}", "a", "a" if place < num_right else "b"] for place in range(NUM)]
            csv.writer(file).writerows([["example", "label", "predicted"], *rows])
        write_record(record, tmp_path)
        return record.run

    def _data(**facts):
        return {"test_examples": NUM, "test_digest": "e" * 64, "majority_share": 0.5} | facts

    return write


def test_a_real_difference_and_its_price(results, tmp_path):
    results("lora", 180)
    results("full", 120)
    found = compare("lora", "full", tmp_path)
    assert found.verdict == "this run of lora is better than this run of full"
    assert any("with other seeds it may be the other way round" in note for note in found.notes)
    assert found.test.difference == pytest.approx(0.3)
    assert "McNemar" in found.evidence
    assert {price.name: price.ratio for price in found.prices}["memory"] == 1
    assert compare("full", "lora", tmp_path).verdict == found.verdict
    assert json.loads(json.dumps(found.to_json()))["verdict"] == found.verdict


def test_no_difference_is_said_in_plain_words(results, tmp_path):
    results("lora", 180)
    results("full", 179)
    assert compare("lora", "full", tmp_path).verdict == (
        "this run of lora and this run of full can't be told apart on these 200 test examples"
    )
    results("mean", 100, is_reference=True, backbone="")
    assert compare("lora", "mean", tmp_path).verdict == "this run of lora is better than mean"


def test_a_row_has_all_its_seeds_a_run_and_a_path_just_one(results, tmp_path):
    first, _ = results("lora", 180, seed=0), results("lora", 178, seed=1)
    results("full", 150)
    assert compare("lora", "full", tmp_path).one.seeds == [0, 1]
    assert "bootstrap" in compare("lora", "full", tmp_path).evidence
    assert compare("lora", "full", tmp_path).verdict == "lora is better than full"
    assert compare("lora", "full", tmp_path).notes == []
    assert compare(first, "full", tmp_path).one.seeds == [0]
    assert compare(str(tmp_path / f"{first}.json"), "full", tmp_path).one.seeds == [0]


def test_of_tables_of_several_sizes_the_one_with_both_rows_is_meant(results, tmp_path):
    for size in (200, 1000):
        results("lora", 180 - size // 100, facts={"train_examples": size})
    results("full", 150, facts={"train_examples": 200})
    assert compare("lora", "full", tmp_path).one.train_examples == 200
    for size in (200, 1000):
        results("mean", 100, facts={"train_examples": size}, is_reference=True, backbone="")
    assert compare("mean", "full", tmp_path).one.train_examples == 200
    results("full", 150, facts={"train_examples": 1000})
    with pytest.raises(
        InputError,
        match=r"(?s)'lora' fits 2 rows; give --train-examples.*1,000 training examples.*200 training examples",
    ):
        compare("lora", "full", tmp_path)

    assert compare("lora", "full", tmp_path, train_examples=1000).one.train_examples == 1000
    with pytest.raises(InputError, match="no run in"):
        compare("lora", "full", tmp_path, task="another")


def test_rows_are_called_as_in_their_table_and_tested_as_there(results, tmp_path):
    """With the noise of the same rows: those of older numerics are not held against today's there either."""
    for seed in (0, 1):
        results("full", 190 - seed, seed=seed)
        results("lora", 185 - seed, seed=seed)
        results("mam", 189 - seed, seed=seed)
        results("ia3", 150 - 30 * seed, seed=seed, numerics_version=1)
    results("lora", 150, settings="lr 1e-2")
    results("tf_idf", 100, is_reference=True, backbone="")
    [group] = Leaderboard.from_results(tmp_path).groups
    places = dict(zip(group.names, group.standings, strict=True))
    called = next(name for name in places if name.startswith("lora") and name.endswith("1e-3"))
    found = compare("full", called, tmp_path)
    assert found.names == ("full", called)
    assert found.test.p_value == places[called].test.p_value
    assert f"can't be told apart from the best ({p_value(places[called].corrected_p)}, Holm's)" in "".join(found.notes)


def test_seeds_that_agree_are_no_single_runs(results, tmp_path):
    for seed in (0, 1):
        results("lora", 180, seed=seed)
        results("full", 150, seed=seed)
    found = compare("lora", "full", tmp_path)
    assert (found.verdict, found.notes) == ("lora is better than full", [])


def test_times_of_machines_of_another_speed_have_no_ratio(results, tmp_path):
    for name, speed in (("lora", 440e9), ("full", 900e9)):
        results(name, 180, time=Time(train_seconds=60, matmul_peak_flops_per_second=speed))
    found = compare("lora", "full", tmp_path)
    assert {price.name: price.ratio for price in found.prices}["train time"] is None
    assert any("machines of other speed: 440 and 900 GFLOP/s" in note for note in found.notes)
    assert "time_compares" not in found.to_json()["sides"][0]


def test_losses_of_other_tokens_of_the_same_texts_are_not_compared(make_record, tmp_path):
    for name, per_text in (("lora", 100), ("full", 200)):
        loss = 300 / per_text
        record = make_record(
            strategy=name, main_metric="loss", metrics={"loss": Metric(value=loss, low=loss - 1, high=loss + 1)}
        )
        record = record.model_copy(update={"predictions": f"{record.run}.predictions.csv"})
        lines = ["example,tokens,loss", *(f"{place:04d},{per_text},300.0" for place in range(NUM))]
        (tmp_path / record.predictions).write_text("\n".join(lines))
        write_record(record, tmp_path)
    with pytest.raises(InputError, match="other tokens of the same texts"):
        compare("lora", "full", tmp_path)


def test_a_label_names_what_the_beginning_of_a_run_can_not(results, tmp_path):
    for settings in ("lr 1e-3", "lr 1e-3, 3 epochs"):
        results("lora", 180, settings=settings)
    assert compare("lora: lr 1e-3", "lora: lr 1e-3, 3", tmp_path).other.settings == "lr 1e-3, 3 epochs"


def test_a_row_may_be_called_as_its_table_shows_it(results, tmp_path):
    results("lora", 180)
    results("lora", 170, quantization="nf4")
    results("full", 150)
    assert compare("lora nf4", "full", tmp_path).one.quantization == "nf4"
    assert compare("lora", "lora nf4", tmp_path).one.quantization == "none"
    results("full", 150, settings="lr 1e-3, 3 epochs")
    results("full", 150, facts={"train_examples": 1000})  # alone in its table: there it is just "full"
    with pytest.raises(InputError, match="'full' fits 2 rows"):
        compare("lora nf4", "full", tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ("lor", "full", ["'lor' fits 2 rows", "lora: nf4, lr 1e-3", "lora: lr 1e-3"]),
        ("looora", "full", ["no run in", "'looora'", "did you mean 'lora"]),
        ("full", "full", ["the same runs"]),
        ("full", "ia3", ["tested on different examples", "ffffffffffff"]),
        ("full", "mam", ["no result to compare: failed, boom"]),
        ("full", "vera", ["can't be tested", "is missing"]),
    ],
)
def test_what_can_not_be_compared_is_refused_with_the_reason(results, make_record, tmp_path, one, other, words):
    results("lora", 180)
    results("lora", 180, quantization="nf4")
    results("full", 180)
    results("ia3", 180, facts={"test_digest": "f" * 64})
    write_record(make_record(strategy="mam", status="failed", reason="boom"), tmp_path)
    (tmp_path / f"{results('vera', 100)}.predictions.csv").unlink()
    with pytest.raises(InputError) as refusal:
        compare(one, other, tmp_path)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("width", [80, 120])
def test_what_is_printed_fits_the_terminal(results, tmp_path, monkeypatch, width):
    from io import StringIO

    from rich.console import Console

    from pewb.screen import leaderboards

    results("lora", 180)
    results("full", 120, backbone="other")
    paper = StringIO()
    monkeypatch.setattr(leaderboards, "out", Console(file=paper, width=width))
    leaderboards.print_comparison(compare("lora", "full", tmp_path))
    lines = paper.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0] == "this run of lora is better than this run of full."
    assert any(line.startswith("Note: other backbones: minilm-l6 and other") for line in lines)
