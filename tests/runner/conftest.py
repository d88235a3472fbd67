"""One good run, done once by the real command, and jobs that are made as `pewb run` makes them."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from pewb.recipe import Cell, LoadedRecipe, parse_recipe
from pewb.runner.prepare import prepare
from pewb.runner.process import reserve
from pewb.runner.worker import Events, do
from tests.assets.conftest import Reports, a_hub, cache, closed_port, reports, server  # noqa: F401
from tests.conftest import SENTENCES

TASK = {"kind": "text_classification", "text": "sentence", "label": "label"} | {
    name: f"{name}.csv" for name in ("train", "validation", "test")
}
TRAINING = {"epochs": 2, "batch_size": 8, "max_tokens": 16, "precision": "fp32", "learning_rate": 0.01}

RECIPE = """\
backbone = "backbones/tiny"
task = { kind = "text_classification", train = "train.csv", validation = "validation.csv", test = "test.csv", text = "sentence" }
seeds = [0, 1]
strategy = { kind = "lora", rank = 4 }
training = { epochs = 2, batch_size = 8, max_tokens = 16, precision = "fp32" }
device = { kind = "cpu", threads = 1 }
"""


def pewb(folder: Path, *arguments: str, **popen: Any) -> "subprocess.Popen[str]":
    """Start the real command in `folder`."""
    environment = os.environ | {"PEWB_CACHE": str(folder / "cache"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    return subprocess.Popen(
        [sys.executable, "-m", "pewb", *arguments],
        cwd=folder,
        env=environment,
        text=True,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **popen,
    )


def write_recipe(folder: Path, backbone: Path) -> Path:
    """Write a user's recipe, data and backbone into `folder`."""
    for name, repeats in (("train", 4), ("validation", 1), ("test", 2)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["sentence", "label"], *(SENTENCES * repeats)])
    (folder / "backbones").mkdir()
    (folder / "backbones" / "tiny").symlink_to(backbone)
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    return recipe


@dataclass
class Finished:
    """What `pewb run recipe.toml --json` left behind."""

    folder: Path
    status: int
    out: str
    err: str

    @property
    def runs(self) -> list[dict[str, Any]]:
        return json.loads(self.out)["runs"]

    def record(self, number: int) -> dict[str, Any]:
        return json.loads((self.folder / self.runs[number]["record"]).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def finished(tiny_backbone, tmp_path_factory) -> Finished:
    """Two seeds of LoRA on a tiny BERT and a user's own files, in pipes; a module of the user's is in the way."""
    folder = tmp_path_factory.mktemp("finished")
    write_recipe(folder, tiny_backbone("bert"))
    (folder / "evaluate.py").write_text("raise SystemExit('the wrong module')", encoding="utf-8")
    process = pewb(folder, "run", "recipe.toml", "--json")
    out, err = process.communicate()
    return Finished(folder, process.returncode, out, err)


@dataclass
class Done:
    """What a job did in this process: its events, and its record if it left one."""

    status: int
    events: list[dict[str, Any]]
    record: dict[str, Any] | None
    results: Path = field(default_factory=Path)

    @property
    def input_error(self) -> str:
        return next(event["text"] for event in self.events if event["event"] == "input_error")


@pytest.fixture
def make_job(tiny_backbone, sentence_files, monkeypatch):
    """Return a function that prepares a job on a tiny backbone, from recipe sections laid over a small one."""
    monkeypatch.chdir(sentence_files)

    def make(architecture: str = "bert", **sections: Any):
        content = {"backbone": str(tiny_backbone(architecture)), "task": TASK, "strategy": {"kind": "lora", "rank": 4}}
        content |= sections | {"training": TRAINING | sections.get("training", {})}
        content["device"] = {"kind": "cpu", "threads": 1} | sections.get("device", {})
        [row] = prepare(LoadedRecipe([Cell(parse_recipe(content))], content), Path("results"), Reports())
        return reserve(row.run(0))

    return make


@pytest.fixture
def do_job(make_job):
    """Return a function that does such a job in this process, as its own process would."""
    threads = torch.get_num_threads()

    def run(architecture: str = "bert", **sections: Any) -> Done:
        job = make_job(architecture, **sections)
        stream = StringIO()
        status = do(job, Events(stream))
        path = job.results / f"{job.run}.json"
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        return Done(status, [json.loads(line) for line in stream.getvalue().splitlines()], record, job.results)

    yield run
    torch.set_num_threads(threads)
