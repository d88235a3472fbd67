"""Language models from a user's JSON Lines to a record and a table."""

import csv
import json
import math
import re
from pathlib import Path

import pytest

from pewb.errors import InputError
from pewb.leaderboard import Leaderboard
from pewb.leaderboard.comparison import compare
from pewb.recipe import Cell, LoadedRecipe, load_recipe, parse_recipe
from pewb.record import read_records
from pewb.runner import run
from pewb.runner.prepare import check, prepare
from tests.tiny_backbones import WORDS

FILES = {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}
TASKS = {
    "llama": FILES | {"kind": "causal_lm", "prompt": "question", "completion": "answer"},
    "t5": FILES | {"kind": "seq2seq", "prompt": "question", "completion": "answer"},
}


def write_pairs(folder: Path) -> None:
    """Write JSON Lines in which every question has its own answer, other ones in each file."""
    for first, name in ((0, "train"), (3, "validation"), (5, "test")):
        step = 3 if name == "train" else 2
        rows = [
            {"question": f"the {WORDS[first + place % step]} {word}", "answer": f"it is {word}"}
            for place, word in enumerate(WORDS)
        ]
        (folder / FILES[name]).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("architecture", TASKS)
def test_a_run_leaves_loss_and_perplexity(architecture, do_job, sentence_files, tiny_language_model):
    write_pairs(sentence_files)
    folder = str(tiny_language_model(architecture))
    done = do_job(architecture, backbone=folder, task=TASKS[architecture])
    assert done.status == 0
    record = done.record
    assert (record["status"], record["main_metric"], record["confusion"]) == ("success", "loss", None)
    loss, perplexity = record["metrics"]["loss"], record["metrics"]["perplexity"]
    assert loss["low"] <= loss["value"] <= loss["high"] < record["baseline"]["loss"]["value"]
    assert perplexity["value"] == pytest.approx(math.exp(loss["value"]))
    assert (loss["interval"], set(record["metrics"])) == ("bootstrap", {"loss", "perplexity"})
    with (done.results / record["predictions"]).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == record["data"]["test_examples"] == len(WORDS)
    assert {row["tokens"] for row in rows} == {"4"}, "three words and the end"
    assert sum(float(row["loss"]) for row in rows) / (4 * len(rows)) == pytest.approx(loss["value"], rel=1e-5)
    assert (record["parameters"]["head"], record["warnings"]) == (0, [])
    assert record["curves"]["validation"][-1][1] < record["curves"]["validation"][0][1]
    assert record["shipped_bytes"] > 0
    for phase in ("train", "evaluation"):
        planned, measured = (record[key][phase]["peak_allocated_bytes"] for key in ("memory_predicted", "memory"))
        assert planned == pytest.approx(measured, rel=0.08), "of tiny tensors, as in test_run.py"
    [row] = Leaderboard(read_records(done.results)).rows
    assert row.main.value == loss["value"]


def test_a_comparison_ranks_the_smaller_loss_first_and_tests_the_others_against_it(
    sentence_files, tiny_language_model, monkeypatch
):
    monkeypatch.chdir(sentence_files)
    write_pairs(sentence_files)
    Path("recipe.toml").write_text(
        f"""
        backbone = "{tiny_language_model("llama")}"
        task = {{ kind = "causal_lm", train = "train.jsonl", test = "test.jsonl", prompt = "question", completion = "answer" }}
        training = {{ epochs = 2, batch_size = 8, max_tokens = 16, precision = "fp32", learning_rate = 1e-2 }}
        device = {{ kind = "cpu", threads = 1 }}
        [[compare]]
        strategy = {{ kind = "lora", rank = 4 }}
        training = {{ learning_rate = 1e-6 }}
        [[compare]]
        strategy = "full"
        [[compare]]
        strategy = "head_only"
        """,
        encoding="utf-8",
    )
    lora, full, head_only = (record for record, _ in run(load_recipe("recipe.toml")))
    assert (head_only.status, head_only.reason.partition(";")[0]) == (
        "refused",
        "strategy 'head_only' does not fit 'llama' models: a language model has no new head, so nothing would be trained",
    )
    assert full.metrics["loss"].value < lora.metrics["loss"].value
    board = Leaderboard.from_results("results")
    [group] = board.groups
    assert [row.strategy for row in group.rows] == ["full", "lora", "untouched model", "head_only"]
    assert [row.kind for row in group.rows].count("reference") == 0
    assert [one.place if one else None for one in group.standings] == ["best", "behind", "not tested", None]
    assert group.standings[1].test.test == "paired bootstrap over examples"
    assert group.standings[1].test.difference > 0, "of a loss more is worse"
    page = board.to_markdown()
    assert "untrained head |" not in page
    assert "most frequent class has" not in page
    assert compare(full.run, lora.run, Path("results")).verdict == "this run of full is better than this run of lora"


def recipe(task, folder="backbone") -> LoadedRecipe:
    content = {"backbone": str(folder), "task": task, "strategy": "lora"}
    return LoadedRecipe([Cell(parse_recipe(content))], content)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"kind": "causal_lm"}, "task: 'train' is missing: give train and test files, or one file as data"),
        ({"kind": "seq2seq"}, "task: 'train' is missing"),
        ({"kind": "text_classification", "labels": ["a", "b"]}, "task: 'train' is missing"),
        (TASKS["llama"] | {"prompt": "qestion"}, r"task.prompt: .* no column 'qestion' \(did you mean 'question'"),
        (FILES | {"kind": "seq2seq", "completion": "answer"}, "task.prompt: .* no column 'prompt'.* it has question"),
        (FILES | {"kind": "causal_lm"}, "task.completion: .* no column 'completion'"),
        (TASKS["t5"] | {"test": "holes.jsonl"}, "task.completion: holes.jsonl has 1 rows without a completion"),
        (TASKS["t5"] | {"test": "none.jsonl"}, "task.test: no file 'none.jsonl'"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_bad_data_is_one_clear_message(
    command, task, message, sentence_files, tiny_backbone, reports, monkeypatch, tmp_path
):
    monkeypatch.chdir(sentence_files)
    write_pairs(sentence_files)
    Path("holes.jsonl").write_text('{"question": "a", "answer": "b"}\n{"question": "c", "answer": ""}\n')
    loaded = recipe(task, tiny_backbone("bert"))
    with pytest.raises(InputError, match=message):
        prepare(loaded, Path("results"), reports) if command == "run" else check(loaded)


def test_a_check_tells_the_sizes(sentence_files, tiny_language_model, monkeypatch):
    monkeypatch.chdir(sentence_files)
    write_pairs(sentence_files)
    told = check(recipe(TASKS["llama"], tiny_language_model("llama")))
    assert told[-1].endswith("16 training, 16 validation and 16 test examples")


@pytest.mark.parametrize(
    ("architecture", "task", "message"),
    [
        ("bert", TASKS["llama"], "this 'bert' model reads its text in both directions"),
        ("t5", TASKS["llama"], "no causal language modelling head for 't5' models"),
        ("llama", TASKS["t5"], "no sequence-to-sequence head for 'llama' models"),
        ("llama", TASKS["llama"], "the weights in .* lack 'lm_head.weight'"),
    ],
)
def test_backbones_that_can_not_do_it(architecture, task, message, do_job, sentence_files, tiny_backbone):
    """The tiny backbones of classification have no weights to predict tokens with."""
    write_pairs(sentence_files)
    done = do_job(architecture, task=task)
    assert done.status == 2
    assert re.search(message, done.input_error), done.input_error


def test_of_prompts_that_fill_everything_the_end_is_read(do_job, sentence_files, tiny_language_model):
    write_pairs(sentence_files)
    rows = [{"question": "a good film and a great cast", "answer": f"it is {word}"} for word in WORDS]
    rows += [{"question": "a", "answer": "b"}]
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = str(tiny_language_model("llama"))
    done = do_job("llama", backbone=folder, task=TASKS["llama"], training={"max_tokens": 7})
    told = done.record["warnings"]
    assert "16 of 17 training texts were cut to 7 tokens" in told
    assert not any("have no target" in one for one in told)
    assert all(math.isfinite(loss) for _, loss in done.record["curves"]["loss"])
