"""The committed evidence: its files are as they were recorded, and the page is what they give.

`results/SHA256SUMS` names what is committed, so that a user's own runs beside it change nothing here. After committing
new records and the page: `make sums`. `results/superseded/` keeps records of older numerics, which have been run again since.
"""

import csv
import hashlib
import random
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from statistics import median

import pytest

from pewb.evaluation.metrics import regression_metrics
from pewb.leaderboard import Leaderboard
from pewb.leaderboard.evidence import evidence_files, evidence_folder
from pewb.leaderboard.rows import rows_of
from pewb.recipe import Recipe, load_recipe
from pewb.record import NUMERICS_VERSION, identity_of, read_record
from pewb.runner import run
from tests.test_recipe import ROOT

FILES = evidence_files(ROOT / "results")
KEPT = [ROOT / name for name in FILES if name.endswith(".json")]
RECORDS = [path for path in KEPT if path.parent == ROOT / "results"]
"""Those of which the page is drawn, and from which `pewb choose` answers."""
SHIPPED = [name for name in [*FILES, "results/SHA256SUMS"] if "superseded" not in name]
NUM_REPRODUCED = 3


def test_what_was_superseded_is_of_older_numerics():
    for path in set(KEPT) - set(RECORDS):
        assert path.parent == ROOT / "results" / "superseded"
        assert read_record(path).numerics_version < NUMERICS_VERSION


def drawn_today() -> list[Path]:
    """Return one run of each of a few rows, drawn by the date, of those that this pewb would compute the same way."""
    chance = random.Random(datetime.now(UTC).date().isoformat())
    rows = [row for row in rows_of(map(read_record, RECORDS)) if row.kind == "strategy" and not row.older_numerics]
    rows = sorted((row for row in rows if row.counted and row.device == "cpu"), key=lambda row: row.counted)
    chosen = chance.sample(rows, NUM_REPRODUCED)
    return [ROOT / "results" / f"{chance.choice(row.counted)}.json" for row in chosen]


def test_the_first_run_of_the_readme_is_answered_by_a_record():
    given = [record.recipe_given for record in map(read_record, RECORDS) if record.numerics_version == NUMERICS_VERSION]
    assert any(one.get("file") == "lora_sst2.toml" and not one.get("set") for one in given)


def test_the_evidence_is_found_and_complete():
    assert evidence_folder() == ROOT / "results"
    assert RECORDS
    assert "leaderboard.md" in FILES


@pytest.mark.parametrize("name", [name for name in FILES if name != "leaderboard.md"])
def test_no_committed_record_was_edited(name):
    assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == FILES[name]


def test_the_leaderboard_is_what_the_records_give(tmp_path):
    for name in FILES:
        if PurePosixPath(name).parent == PurePosixPath("results"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    page = Leaderboard.from_results(tmp_path / "results").to_markdown().encode()
    assert hashlib.sha256(page).hexdigest() == FILES["leaderboard.md"]
    if {path.name for path in (ROOT / "results").glob("*.json")} == {path.name for path in RECORDS}:
        assert page == (ROOT / "leaderboard.md").read_bytes()


@pytest.mark.parametrize("path", ["README.md", "results/README.md"])
def test_the_findings_quote_the_leaderboard(path):
    """Values and intervals of three digits, and p: each stands somewhere on the page."""
    page = (ROOT / "leaderboard.md").read_text(encoding="utf-8")
    text = (ROOT / path).read_text(encoding="utf-8")
    begin, end = {"README.md": ("## Measured here", "## The house")}.get(path, ("## What follows", "## Planned"))
    text = " ".join(text[text.index(begin) : text.index(end)].split())
    quoted = [*re.findall(r"\b0\.\d{3}(?: \[[^]]*\])?", text), *re.findall(r"\bp 0\.\d+", text)]
    for group in re.findall(r"\bp (0\.\d+(?:(?:,| and) 0\.\d+)+)", text):
        quoted += [f"p {value}" for value in re.findall(r"0\.\d+", group)]
    values = [value for value in quoted if value.startswith("p ") or f"p {value}" not in quoted]
    assert len(values) > 20
    assert [value for value in values if value not in page] == []


def test_plans_are_as_far_off_as_is_said():
    rows = rows_of(map(read_record, RECORDS))
    rows = [row for row in rows if row.kind == "strategy" and not row.older_numerics]
    off = [100 * error for row in rows for error in row.plan_errors]
    said = (
        f"Of {len(off)} runs of numerics {NUMERICS_VERSION}",
        f"the median is {median(off):+.1f} %",
        f"the plan is {min(off):+.1f} % to {max(off):+.1f} % off, and of {sum(abs(one) <= 0.5 for one in off)} at most 0.5 %",
    )
    text = " ".join((ROOT / "results" / "README.md").read_text(encoding="utf-8").split()).replace("−", "-")
    assert [part for part in said if part not in text] == []


def test_the_pictures_are_what_the_records_give(tmp_path):
    """What they show, by the labels of their marks; letters have other widths elsewhere."""
    for path in RECORDS:
        shutil.copy(path, tmp_path)
        if (predictions := path.with_suffix(".predictions.csv")).exists():
            shutil.copy(predictions, tmp_path)
    drawn = Leaderboard.from_results(tmp_path).plot(tmp_path / "plots")
    committed = sorted((ROOT / "results" / "plots").glob("*.svg"))
    assert [path.name for path in committed] == sorted(path.name for path in drawn)
    for path in drawn:
        labels, expected = (
            re.findall('aria-label="([^"]*)"', one.read_text()) for one in (path, committed[0].parent / path.name)
        )
        assert labels == expected
        assert len(labels) > 3


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_the_predictions_give_the_recorded_metric(path):
    record = read_record(path)
    if record.predictions is None:
        assert record.status != "success"
        return
    assert (path.parent / record.predictions).relative_to(ROOT).as_posix() in FILES
    with (path.parent / record.predictions).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == record.data["test_examples"]
    if record.main_metric == "pearson":
        pairs = [[float(row[key]) for row in rows] for key in ("number", "predicted")]
        assert regression_metrics(*pairs)["pearson"].value == pytest.approx(record.metrics["pearson"].value, abs=1e-6)
        return
    if record.main_metric == "loss":
        sums = [sum(float(row[key]) for row in rows) for key in ("loss", "tokens")]
        assert sums[0] / sums[1] == pytest.approx(record.metrics["loss"].value, abs=1e-6)
        return
    assert len(rows) == sum(map(sum, record.confusion.counts))
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert right / len(rows) == pytest.approx(record.metrics["accuracy"].value)


def machines(found) -> set[str]:
    """Return which of the two, by their products of matrices: 440 GFLOP/s, or twice that and more."""
    speeds = [record.time.matmul_peak_flops_per_second for record, _ in found]
    return {"slower" if speed < 600e9 else "faster" for speed in speeds if speed}


def test_what_was_run_on_two_machines_came_out_the_same():
    runs = defaultdict(list)
    for path in RECORDS:
        record = read_record(path)
        if record.status == "success" and record.numerics_version == NUMERICS_VERSION:
            runs[record.identity].append((record, (path.parent / record.predictions).read_text(encoding="utf-8")))
    twice = [found for found in runs.values() if len(machines(found)) > 1]
    assert twice
    for (first, its_predictions), *others in twice:
        for other, predictions in others:
            assert (other.metrics, other.curves.loss) == (first.metrics, first.curves.loss), other.run
            assert predictions == its_predictions, other.run
    text = " ".join((ROOT / "results" / "README.md").read_text(encoding="utf-8").split())
    assert f"agree to the last digit in {len(twice)} runs" in text


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_committed_record_still_answers_the_recipe_that_it_ran(path):
    """Options that are added must not make what was run look like something else."""
    record = read_record(path)
    if record.is_reference:
        return
    given = {key: record.recipe_resolved[key] for key in ("backbone", "task", "seeds")}
    today = Recipe.model_validate(record.recipe_resolved).model_dump(mode="json") | given
    assert identity_of(today, record.assets) == identity_of(record.recipe_resolved, record.assets)


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("place", range(NUM_REPRODUCED))
def test_a_record_drawn_by_the_date_and_run_again_gives_the_same_to_the_last_digit(place, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    path = drawn_today()[place]
    print(f"run again: {path.name}")
    record = read_record(path)
    [(again, _)] = run(load_recipe(path), tmp_path / "results")
    assert again.status == "success", again.reason
    here, there = ({key: one.environment[key] for key in ("device", "threads")} for one in (again, record))
    assert here == there, f"{path.name} is of another kind of machine, on which alone it is the same to the last digit"
    assert again.metrics == record.metrics
    assert again.curves == record.curves
    assert again.memory.train.peak_allocated_bytes == record.memory.train.peak_allocated_bytes
    assert (tmp_path / "results" / again.predictions).read_bytes() == (path.parent / record.predictions).read_bytes()


def test_the_wheel_is_told_to_ship_the_evidence():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = [(folder, pattern) for folder, listed in setuptools["data-files"].items() for pattern in listed]
    for name in SHIPPED:
        place = str(PurePosixPath("share/pewb") / PurePosixPath(name).parent)
        assert any(folder == place and PurePosixPath(name).match(pattern) for folder, pattern in patterns), name


@pytest.mark.slow
def test_the_wheel_ships_the_evidence(tmp_path):
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".venv", ".git", "build", "*.egg-info", "models", "logs", ".*_cache")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    shipped = {name.split("/share/pewb/")[-1] for name in zipfile.ZipFile(wheel).namelist()}
    assert set(SHIPPED) <= shipped
