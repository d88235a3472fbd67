"""`pewb run` as a user types it: the good run, seen from every side, and the interrupted one."""

import csv
import json
import re
import signal
from pathlib import Path

import pytest

from pewb.leaderboard import Leaderboard
from pewb.record import read_records
from pewb.runner.process import reserve
from tests.runner.conftest import RECIPE, pewb, write_recipe


def test_standard_output_is_one_document_in_the_promised_shape(finished):
    assert finished.status == 0, finished.err
    assert list(json.loads(finished.out)) == ["runs"]
    assert [run["seed"] for run in finished.runs] == [0, 1]
    for run in finished.runs:
        assert run["status"] == "success"
        assert (run["backbone"], run["strategy"], run["quantization"]) == ("backbones/tiny", "lora", "none")
        for metrics in (run["metrics"], run["baseline"]):
            metric = metrics["accuracy"]
            assert metric["low"] <= metric["value"] <= metric["high"]
        counts = run["parameters"]
        assert 0 < counts["head"] < counts["trainable"] < counts["total"]
        for phase in ("train", "evaluation"):
            peak = run["memory"][phase]
            assert set(peak) == {"peak_allocated_bytes", "peak_reserved_bytes", "peak_resident_bytes"}
            assert peak["peak_reserved_bytes"] is None, "a CPU has no allocator that reserves"
            assert 0 < peak["peak_allocated_bytes"] < peak["peak_resident_bytes"]
            predicted = run["memory_predicted"][phase]["peak_allocated_bytes"]
            assert predicted == pytest.approx(peak["peak_allocated_bytes"], rel=0.08), (
                "of tiny tensors, of which the mask, which this batch does without, is a large part"
            )
        assert run["time"]["train_seconds"] > 0
        assert run["time"]["samples_per_second"] > 0
        assert run["record"] == f"results/{run['run']}.json"


def test_progress_goes_to_standard_error_as_plain_lines(finished):
    assert "\x1b" not in finished.out + finished.err
    assert "\r" not in finished.err
    known = r"(run|loading|training|validating|evaluating|fitting|\d+ of \d+ test examples|.+: done after)( .+)?"
    assert [line for line in finished.err.splitlines() if not re.fullmatch(known, line)] == []
    assert re.search(r"training \d+%  loss \d\.\d+  \d+ samples/s  memory [\d.]+ MiB", finished.err)


def test_the_record_keeps_what_was_asked_and_what_was_done(finished):
    record = finished.record(0)
    assert record["recipe_given"]["file"] == "recipe.toml"
    assert record["recipe_given"]["content"]["seeds"] == [0, 1]
    assert "learning_rate" not in record["recipe_given"]["content"]["training"]
    resolved = record["recipe_resolved"]
    assert resolved["seeds"] == [0]
    assert resolved["training"]["learning_rate"] > 0
    assert resolved["strategy"] == {"kind": "lora", "rank": 4} | {
        key: value for key, value in resolved["strategy"].items() if key not in ("kind", "rank")
    }
    backbone, task = record["assets"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(backbone["digests"])
    assert set(task["digests"]) == {"train.csv", "validation.csv", "test.csv"}
    assert {"torch", "peft", "transformers"} <= set(record["environment"]["packages"])
    assert (record["device"]["kind"], record["environment"]["threads"]) == ("cpu", 1)
    assert record["precision"] == "fp32"
    assert record["micro_batch_size"] == 8
    assert (record["data"]["train_examples"], record["data"]["test_examples"]) == (48, 24)
    steps = [step for step, _ in record["curves"]["loss"]]
    assert steps == list(range(1, 13))
    assert [step for step, _ in record["curves"]["learning_rate"]] == steps
    assert [step for step, _ in record["curves"]["validation"]] == [6, 12]
    assert record["started_at"] <= record["finished_at"]


def test_each_seed_is_a_process_and_a_time_of_its_own(finished):
    first, second = finished.record(0), finished.record(1)
    assert first["identity"] != second["identity"]
    assert first["finished_at"] <= second["started_at"]
    assert len(list((finished.folder / "results" / "logs").glob("lora-*"))) == 2


def test_predictions_confusion_and_metrics_agree(finished):
    for number, run in enumerate(finished.runs):
        record = finished.record(number)
        with (finished.folder / "results" / record["predictions"]).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 24
        right = sum(row["label"] == row["predicted"] for row in rows)
        assert run["metrics"]["accuracy"]["value"] == pytest.approx(right / 24)
        labels, counts = record["confusion"]["labels"], record["confusion"]["counts"]
        for true, line in zip(labels, counts, strict=True):
            for predicted, count in zip(labels, line, strict=True):
                assert count == sum(row["label"] == true and row["predicted"] == predicted for row in rows)
        for row in rows:
            shares = {name: float(row[f"p({name})"]) for name in labels}
            assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
            assert shares[row["predicted"]] >= max(shares.values()) - 1e-5


def test_the_model_folder_is_what_must_be_shipped(finished):
    for number, run in enumerate(finished.runs):
        folder = finished.folder / "results" / finished.record(number)["model"]
        sizes = [path.stat().st_size for path in folder.iterdir() if path.suffix != ".md"]
        assert sum(sizes) == run["shipped_bytes"]


def test_no_record_tells_of_the_users_folders(finished):
    for path in (finished.folder / "results").glob("*.*"):
        text = path.read_text(encoding="utf-8")
        assert str(finished.folder) not in text
        assert str(Path.home()) not in text
    for path in (finished.folder / "results" / "models").rglob("adapter_config.json"):
        assert str(finished.folder) not in path.read_text(encoding="utf-8")


def test_two_seeds_are_one_row_of_the_leaderboard(finished):
    rows = Leaderboard.from_results(finished.folder / "results").to_json()["rows"]
    [row] = [row for row in rows if row["strategy"] == "lora"]
    assert row["seeds"] == [0, 1]
    assert row["runs"] == [run["run"] for run in finished.runs]
    values = [run["metrics"]["accuracy"]["value"] for run in finished.runs]
    assert row["metrics"]["accuracy"]["value"] == pytest.approx(sum(values) / 2)
    shared = set(row) & set(finished.runs[0])
    assert {"backbone", "task", "strategy", "quantization", "status", "metrics", "parameters", "memory"} <= shared


def test_the_leaderboard_regenerates_byte_for_byte(finished):
    page = (finished.folder / "leaderboard.md").read_bytes()
    assert Leaderboard.from_results(finished.folder / "results").to_markdown().encode() == page


def test_running_again_never_overwrites(finished, make_job, monkeypatch):
    monkeypatch.chdir(finished.folder)
    name = finished.runs[0]["run"]
    job = make_job().model_copy(update={"run": name})
    monkeypatch.chdir(finished.folder)
    second, third = reserve(job), reserve(job)
    try:
        assert (second.run, third.run) == (f"{name}-2", f"{name}-3"), "a run without a record yet holds its name"
    finally:
        second.log_file.unlink()
        third.log_file.unlink()


def test_an_interrupt_leaves_a_cancelled_record(tiny_backbone, tmp_path):
    write_recipe(tmp_path, tiny_backbone("bert")).write_text(RECIPE.replace("epochs = 2", "epochs = 100000"))
    process = pewb(tmp_path, "run", "recipe.toml", "--json")
    told = []
    for line in process.stderr:
        told.append(line)
        if line.startswith("training"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate()
    assert process.returncode == 130, "".join(told) + err
    assert out == ""
    assert "Traceback" not in err
    assert "interrupted; what was done is recorded" in err
    [record] = read_records(tmp_path / "results")
    assert (record.status, record.reason, record.seed) == ("cancelled", "interrupted", 0)
    assert record.curves.loss
    assert record.memory.train.peak_allocated_bytes
    assert "cancelled" in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert not list((tmp_path / "results").glob("*.partial"))
