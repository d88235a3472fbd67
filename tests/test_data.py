"""`pewb data`: what a model will see of a user's own file, and a copy without what is there twice."""

import json

import pytest
from typer.testing import CliRunner

from pewb.cli import app
from pewb.recipe import load_recipe
from pewb.tasks import read_examples

TRAIN = [
    ("a good film", "positive"),
    ("a good  film", "positive"),
    ("a bad film", "negative"),
    ("the cast was great", "positive"),
    ("the cast was great", "negative"),
    ("it is very good and it was very great", "positive"),
    ("the plot was dull", "negative"),
    ("dull", "negative"),
]
TEST = [("the plot was dull", "negative"), ("a great story", "positive")]


@pytest.fixture
def recipe(tmp_path, tiny_backbone, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, rows in (
        ("train", TRAIN),
        ("validation", [("a dull story", "negative"), ("good", "positive")]),
        ("test", TEST),
    ):
        lines = ["text,label", *(f"{text},{label}" for text, label in rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'backbone = "{tiny_backbone("bert").as_posix()}"\nstrategy = "lora"\n'
        'task = { train = "train.csv", validation = "validation.csv", test = "test.csv" }\n'
        "training = { max_tokens = 6 }\naugment = { swap = 1.0 }\n"
    )
    return path


def invoke(*arguments):
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_is_told_of_a_file(recipe):
    report = json.loads(invoke(recipe, "--json"))
    train = report["splits"][0]
    assert [split["num_examples"] for split in report["splits"]] == [8, 2, 2]
    assert train["classes"] == {"negative": 4, "positive": 4}
    assert train["repeated"] == {
        "elsewhere": {"test": [6], "validation": []},
        "contradictory": [3, 4],
        "duplicates": [1],
    }
    assert (train["num_cut"], max(train["lengths"])) == (1, 6)
    assert report["shown"][0]["tokens"] == ["[CLS]", "a", "good", "film", "[SEP]"]
    assert report["shown"][0]["label"] == "positive"
    assert report["num_augmented"] > 0


def test_what_a_user_sees(recipe):
    told = invoke(recipe)
    assert "1 of 8 examples have a text that is in test too; leave them out: --clean FOLDER" in told
    assert "2 examples have the text of another, and an unlike label" in told
    assert "[CLS]·a·good·film·[SEP]·  → positive" in told
    assert "altered copies of training examples" in told


def test_a_clean_copy_is_a_task_like_the_first(recipe, tmp_path):
    told = invoke(recipe, "--clean", "clean")
    assert "train: 4 kept; left out: 1 also in test, 2 same text, unlike labels, 1 there already" in told
    table = told[told.index("[task]") :]
    text = recipe.read_text().splitlines()
    recipe.write_text("\n".join([*(line for line in text if not line.startswith("task")), table]))
    loaded = load_recipe(recipe)
    examples = read_examples(loaded.recipe.task, tmp_path, {})
    assert examples.warnings == []
    assert examples.labels == ["negative", "positive"]
    assert [texts[0] for texts in examples.train.texts] == [TRAIN[0][0], TRAIN[2][0], TRAIN[5][0], TRAIN[7][0]]
    again = CliRunner().invoke(app, ["data", str(recipe), "--clean", "clean"])
    assert again.exit_code != 0
    assert "is there already" in str(again.exception)


def test_a_clean_copy_is_of_all_examples_and_keeps_how_they_are_judged(recipe):
    asked = ("--set", "limit.train=4", "--set", "limit.test=2", "--set", "task.metric=f1")
    told = invoke(recipe, "--clean", "clean", *asked)
    assert "train: 4 kept; left out: 1 also in test, 2 same text, unlike labels, 1 there already" in told
    assert 'metric = "f1"' in told


def test_learned_tokens_stand_between_marks(recipe, tiny_language_model):
    path = recipe.parent / "pairs.jsonl"
    path.write_text((json.dumps({"q": "a good film", "a": "it was great"}) + "\n") * 2)
    recipe.write_text(
        f'backbone = "{tiny_language_model("llama").as_posix()}"\nstrategy = "lora"\n'
        'task = { kind = "causal_lm", train = "pairs.jsonl", validation = "pairs.jsonl", test = "pairs.jsonl", prompt = "q", completion = "a" }\n'
    )
    assert "a·good·film·«it·was·great·</s>·»" in invoke(recipe)
