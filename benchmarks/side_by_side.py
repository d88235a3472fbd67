"""What the benches against transformers' Trainer share: a run of each side in a process of its own, and ratios with their spread."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pewb.recipe import load_recipe
from pewb.record import Record, read_record
from pewb.reporting import Silent
from pewb.runner.job import TrainingJob
from pewb.runner.prepare import prepare

ATTENTIONS = ("eager", "sdpa")


def job_of(recipe: Path, overrides: Sequence[str], folder: Path) -> tuple[TrainingJob, Path]:
    """Return a recipe's only run as `pewb run` gives it to its process, and the file that holds it."""
    [row] = prepare(load_recipe(recipe, list(overrides)), folder / "results", Silent())
    job: Any = row.run(0)
    file = folder / "job.json"
    file.write_text(job.model_dump_json(), encoding="utf-8")
    return job, file


def ours(job: TrainingJob, file: Path) -> Record:
    """Return the record of a run of pewb."""
    _output_of("pewb.runner.worker", str(file))
    path = job.results / f"{job.run}.json"
    record = read_record(path)
    path.unlink()
    assert record.status == "success", record.reason
    return record


def theirs(file: Path, attention: str, module: str = "benchmarks.rival", *options: str) -> dict[str, Any]:
    """Return what Trainer took and reached."""
    told = _output_of(module, str(file), "--attention", attention, *options)
    measured: dict[str, Any] = json.loads(told.splitlines()[-1])
    return measured


def faster_attention(file: Path, *arguments: str) -> str:
    """Return the attention with which Trainer is faster at a job, a short one."""
    return max(ATTENTIONS, key=lambda one: theirs(file, one, *arguments)["samples_per_second"])


def spread(ratios: Sequence[float]) -> str:
    """Return the median ratio with the least and the most."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _output_of(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout
