"""From names to files: which source is taken when the hub is up, silent, absent or something else; and bad data."""

from io import BytesIO
from pathlib import Path

import pytest

from pewb.assets import hub_api, pypi, tasks
from pewb.errors import InputError, UnavailableError
from pewb.recipe import Cell, LoadedRecipe, parse_recipe
from pewb.runner.prepare import check, prepare
from tests.conftest import SENTENCES
from tests.runner.conftest import TASK

COMMIT = "c" * 40


def recipe(backbone, task=("sst2", "movie-snippets"), **sections) -> LoadedRecipe:
    task = list(task) if isinstance(task, tuple) else task
    content = {"backbone": str(backbone), "task": task, "strategy": "head_only"} | sections
    return LoadedRecipe([Cell(parse_recipe(content))], content)


@pytest.fixture
def snippets(cache):
    """A few movie snippets in the cache, as if they had been fetched from their package."""
    [source] = tasks()["movie-snippets"].sources
    slot = pypi.slot_of(source)
    slot.staging.mkdir(parents=True)
    name = "movieReviewSnippets_GroundTruth.txt"
    ratings = {"positive": 2.5, "negative": -2.5}
    lines = [
        f"{number}\t{ratings[label]}\t{text} number {number}" for number, (text, label) in enumerate(SENTENCES * 9)
    ]
    (slot.staging / name).write_text("\n".join(lines), encoding="utf-8")
    slot.install("pypi:vaderSentiment==3.3.2", [name])


def test_every_name_that_is_not_known_is_told_at_once(snippets):
    with pytest.raises(InputError) as error:
        check(recipe("minilm-l66", ("movie-snippetss",)))
    assert "did you mean 'minilm-l6'" in str(error.value)
    assert "did you mean 'movie-snippets'" in str(error.value)
    with pytest.raises(InputError, match="no task 'org/data' in the catalogue"):
        check(recipe("minilm-l6", ("org/data",)))


@pytest.fixture
def a_full_hub(a_hub, tiny_backbone):
    """A hub with a tiny backbone and a tiny SST-2 in the shape of the real one."""
    import pandas

    folder = tiny_backbone("bert")
    a_hub.repositories["models/org/tiny"] = {COMMIT: {path.name: path.read_bytes() for path in folder.iterdir()}}
    files = {}
    for split in ("train", "validation", "test"):
        rows = [
            {
                "idx": number,
                "sentence": f"{split} {text} {number}",
                "label": int(label == "positive") if split != "test" else -1,
            }
            for number, (text, label) in enumerate(SENTENCES * 4)
        ]
        buffer = BytesIO()
        pandas.DataFrame(rows).to_parquet(buffer)
        files[f"data/{split}-00000-of-00001.parquet"] = buffer.getvalue()
    a_hub.repositories["datasets/stanfordnlp/sst2"] = {COMMIT: files}
    return a_hub


def test_with_the_hub_sst2_is_taken(a_full_hub, reports, tmp_path):
    [row] = prepare(recipe("org/tiny"), tmp_path / "results", reports)
    job = row.run(0)
    assert job.task_name == "sst2"
    assert reports.notices == []
    assert [asset.source for asset in job.assets] == [f"hub:org/tiny@{COMMIT}", f"hub:stanfordnlp/sst2@{COMMIT}"]
    assert job.backbone_public_name == "org/tiny"
    assert all(not Path(name).is_absolute() for asset in job.assets for name in asset.digests)
    assert str(tmp_path) not in job.record("failed").model_dump_json()


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("silent", "no answer within 0.05 s"),
        ("trickle", "no answer within 0.05 s"),
        ("html", "it does not answer as a hub does"),
        ("no sha", "it does not answer as a hub does"),
        ("error", "it answers with status 503"),
    ],
)
def test_without_the_hub_the_next_task_is_taken_and_one_line_says_so(
    a_hub, snippets, tiny_backbone, reports, tmp_path, monkeypatch, behaviour, reason
):
    if "no answer" in reason:
        monkeypatch.setattr(hub_api, "PROBE_SECONDS", 0.05)
    a_hub.behaviour = behaviour
    [row] = prepare(recipe(tiny_backbone("bert")), tmp_path / "results", reports)
    job = row.run(0)
    assert job.task_name == "movie-snippets"
    told = f"sst2: the model hub can't be reached ({a_hub.address}: {reason}); using movie-snippets instead"
    assert reports.notices == [told]
    assert job.notices == [told], "the record says it too"
    assert job.recipe_resolved["task"] == "movie-snippets"


def test_an_absent_hub_is_found_out_once(snippets, closed_port, tiny_backbone, reports, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port}")
    [row] = prepare(recipe(tiny_backbone("bert")), tmp_path / "results", reports)
    job = row.run(0)
    assert job.task_name == "movie-snippets"
    assert len(reports.notices) == 1
    assert reports.notices[0].startswith("sst2: the model hub can't be reached")


def test_what_only_the_hub_has_is_told_with_a_way_out(tiny_backbone, reports, tmp_path):
    with pytest.raises(UnavailableError, match=r"sst2: the model hub can't be reached .*HF_ENDPOINT"):
        prepare(recipe(tiny_backbone("bert"), "sst2"), tmp_path / "results", reports)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": "trian.csv"}, ["task.train", "trian.csv", "did you mean 'train.csv'"]),
        ({"label": "lable"}, ["task.label", "lable", "did you mean 'label'", "sentence"]),
        ({"text": "text"}, ["task.text", "no column 'text'", "sentence, label"]),
        ({"test": "header_only.csv"}, ["test split is empty"]),
        ({"train": "empty.csv"}, ["empty.csv", "empty"]),
        (
            dict.fromkeys(("train", "validation", "test"), "one_class.csv"),
            ["training example", "the label 'positive'", "at least two classes"],
        ),
        ({"train": "holes.csv"}, ["task.label", "rows without a label", "row 2"]),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_bad_data_is_one_clear_message(command, change, words, sentence_files, tiny_backbone, reports, monkeypatch):
    monkeypatch.chdir(sentence_files)
    Path("header_only.csv").write_text("sentence,label\n")
    Path("empty.csv").write_text("")
    Path("one_class.csv").write_text("sentence,label\n" + "".join(f"text {n},positive\n" for n in range(20)))
    Path("holes.csv").write_text("sentence,label\na good film,positive\na bad film,\n")
    loaded = recipe(tiny_backbone("bert"), TASK | change)
    with pytest.raises(InputError) as caught:
        prepare(loaded, Path("results"), reports) if command == "run" else check(loaded)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not Path("results").exists()


def test_names_in_any_script_serve(sentence_files, tiny_backbone, reports, monkeypatch):
    monkeypatch.chdir(sentence_files)
    for name in ("train", "validation", "test"):
        content = (
            Path(f"{name}.csv").read_text(encoding="utf-8").replace("positive", "хорошо").replace("negative", "плохо")
        )
        Path(f"данные-{name}.csv").write_text(content, encoding="utf-8")
    task = TASK | {name: f"данные-{name}.csv" for name in ("train", "validation", "test")}
    [row] = prepare(recipe(tiny_backbone("bert"), task), Path("results"), reports)
    job = row.run(0)
    assert job.task_name == "данные-train"
    assert job.run.isascii()
    assert job.record("failed").assets[1].digests.keys() == {task["train"], task["validation"], task["test"]}


def test_a_seed_named_twice_is_run_once(sentence_files, tiny_backbone, reports, monkeypatch):
    monkeypatch.chdir(sentence_files)
    [row] = prepare(recipe(tiny_backbone("bert"), TASK, seeds=[3, 3, 4]), Path("results"), reports)
    assert row.seeds == [3, 4]
    assert row.run(3).run != row.run(4).run
