"""The record of a run: one JSON file, never edited, from which every table is drawn."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pewb.errors import InputError

SCHEMA_VERSION = 2
"""Raised when the shape of a record changes; `_UPGRADES` then gains a function from the version before."""

NUMERICS_VERSION = 4
"""Raised when a change alters what a run computes, so that older records are not mistaken for the same run."""

Status = Literal["success", "out_of_memory", "failed", "cancelled", "refused"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Metric(_Section):
    """A measured value with its 95 % interval."""

    value: float
    low: float
    high: float
    interval: str = "wilson"
    """How the interval was made: `wilson` (a proportion) or `bootstrap` (percentiles over test examples)."""


class AssetRecord(_Section):
    """Where a backbone or a task came from, and the SHA-256 of each of its files."""

    name: str
    kind: Literal["backbone", "task"]
    source: str
    digests: dict[str, str]


class Parameters(_Section):
    """Parameter counts; every stored tensor once, quantised ones as what they stand for."""

    trainable: int
    """Trainable under the strategy, the head included."""
    head: int
    total: int


class Peak(_Section):
    """The largest memory of a phase; null where it was not measured."""

    peak_allocated_bytes: int | None = None
    """Live tensors."""
    peak_reserved_bytes: int | None = None
    """Held by the allocator (GPU only)."""
    peak_resident_bytes: int | None = None
    """The process's resident set."""

    @property
    def held_bytes(self) -> int | None:
        """What a GPU's allocator held, else the live tensors."""
        return self.peak_allocated_bytes if self.peak_reserved_bytes is None else self.peak_reserved_bytes


class Memory(_Section):
    """The peaks of both phases, measured apart."""

    train: Peak = Peak()
    evaluation: Peak = Peak()
    prefix_cache_bytes: int | None = None
    """The cached states of the frozen layers: on disk, mapped into memory, and not in the peaks of live tensors."""


class Time(_Section):
    """Durations and rates; null where not measured."""

    load_seconds: float | None = None
    """Reading the data and the weights, inserting the strategy."""
    train_seconds: float | None = None
    """The optimizer's steps, and the one pass through frozen layers that are cached; without evaluation."""
    prefix_seconds: float | None = None
    """Of those, the pass through the frozen layers, counted in full where an earlier run had left its states."""
    evaluate_seconds: float | None = None
    """The evaluation of the tuned model on the test split."""
    generate_seconds: float | None = None
    """The texts that the tuned model wrote for the test split."""
    total_seconds: float | None = None
    steps_per_second: float | None = None
    samples_per_second: float | None = None
    tokens_per_second: float | None = None
    """Real (unpadded) tokens."""
    flops_per_second: float | None = None
    """Floating-point operations of products, those on padding left out, each counted as often as it was computed."""
    matmul_peak_flops_per_second: float | None = None
    """The most that products of large matrices reach on the device in the run's precision, measured there."""
    model_flops_utilization: float | None = None
    """The first over the second (Chowdhery et al. 2022, arXiv:2204.02311, appendix B); null with gradient checkpointing, which
    computes the forward twice."""


class Curves(_Section):
    """What was seen along the way, each entry with the optimizer step it belongs to."""

    loss: list[tuple[int, float]] = []
    learning_rate: list[tuple[int, float]] = []
    validation: list[tuple[int, float]] = []
    """The task's main metric on the validation split."""


class Confusion(_Section):
    """The confusion matrix on the test split."""

    labels: list[str]
    counts: list[list[int]]
    """Rows are true classes, columns predicted ones."""


class Trial(_Section):
    """One trial of a search: what was tried, and what it reached on the validation split."""

    values: dict[str, Any]
    """Recipe keys and the values that were tried."""
    state: Literal["complete", "pruned", "failed"]
    validation: float | None = None
    """The main metric; of a pruned trial the last value before it was given up."""


class Tuning(_Section):
    """How a run's hyper-parameters were chosen: on the validation split alone, before the test split was touched."""

    study: str
    """Identity of the search: what was searched, on which files."""
    seed: int
    """Of every trial."""
    trials: list[Trial]
    chosen: dict[str, Any]
    notices: list[str] = []


class Device(_Section):
    """Where the run computed."""

    kind: str
    """cpu, cuda, mps, xpu."""
    name: str
    memory_limit_bytes: int | None = None


class Record(_Section):
    """Everything one run was asked, did and measured."""

    schema_version: int = SCHEMA_VERSION
    numerics_version: int = NUMERICS_VERSION
    run: str
    identity: str
    """SHA-256 of the resolved recipe, the assets' digests and `numerics_version`."""
    status: Status
    reason: str | None = None
    traceback: str | None = None
    warnings: list[str] = []
    """What must be known before the result is believed; shown in every table."""
    notices: list[str] = []
    """What the user was told besides, such as which source or task took another's place."""
    started_at: str
    finished_at: str

    backbone: str
    task: str
    strategy: str
    settings: str
    """The strategy's and the training's settings in a few words, for a table."""
    quantization: str
    seed: int
    precision: str | None = None
    micro_batch_size: int | None = None
    """Examples on the device at once, after any halving on running out of memory."""
    device: Device | None = None

    is_reference: bool = False
    """Whether this is a classical predictor, with no backbone, that every strategy is held against."""
    tuning: Tuning | None = None

    recipe_given: dict[str, Any]
    recipe_resolved: dict[str, Any]
    assets: list[AssetRecord] = []
    environment: dict[str, Any] = {}
    data: dict[str, Any] = {}
    """Examples in each split, labels, digest of the test examples, texts that were cut."""

    prefix_cache: bool | None = None
    """Whether the frozen layers were run once for all epochs; null where the lowest layer is trained, or nothing was."""
    parameters: Parameters | None = None
    memory: Memory = Memory()
    memory_predicted: Memory | None = None
    time: Time = Time()
    shipped_bytes: int | None = None
    """Size on disk of what must be shipped to use the result beside the backbone."""
    main_metric: str | None = None
    metrics: dict[str, Metric] = {}
    baseline: dict[str, Metric] = {}
    """The untouched model with an untrained head, on the same test examples."""
    curves: Curves = Curves()
    confusion: Confusion | None = None
    predictions: str | None = None
    """File of per-example test predictions, beside the record."""
    model: str | None = None
    """Folder of the trained weights, relative to the record."""
    head_constants: dict[str, float] = {}
    """What answers depend on beside the weights: a regression's scale, the doubt up to which a question is answered."""

    def summary(self, path: Path | None = None) -> dict[str, Any]:
        """Return what `pewb run --json` prints of this run."""
        dumped = self.model_dump(mode="json")
        keys = ("run", "status", "reason", "backbone", "task", "strategy", "settings", "quantization", "seed", "tuning")
        figures = (
            "metrics",
            "baseline",
            "parameters",
            "memory",
            "memory_predicted",
            "time",
            "shipped_bytes",
            "warnings",
            "notices",
        )
        return {key: dumped[key] for key in keys + figures} | {"record": str(path) if path else None}


def identity_of(resolved: dict[str, Any], assets: list[AssetRecord]) -> str:
    """Return the identity of a run: the same for the same resolved recipe, assets and numerics version.

    Keys that are left out (null) do not count, so that a new option leaves older identities as they were.
    """
    digests = sorted((asset.kind, sorted(asset.digests.items())) for asset in assets)
    content = json.dumps([_without_nulls(resolved), digests, NUMERICS_VERSION], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def run_name(backbone: str, task: str, strategy: str, quantization: str, seed: int, identity: str) -> str:
    """Return a readable name for a run, which is also its file's name."""
    parts = [strategy, backbone, task, *([] if quantization == "none" else [quantization]), f"seed{seed}", identity[:8]]
    safe = [re.sub(r"[^A-Za-z0-9._]+", "-", part)[-50:].strip("-.") for part in parts]  # a path's end tells most
    return "-".join(part for part in safe if part)


def free_name(results: Path, name: str) -> str:
    """Return `name`, or `name-2`, `name-3` … if that name has a record, or a log of a run that has none (yet)."""
    candidate, count = name, 1
    while (results / f"{candidate}.json").exists() or (results / "logs" / f"{candidate}.log").exists():
        count += 1
        candidate = f"{name}-{count}"
    return candidate


def write_record(record: Record, results: Path) -> Path:
    """Write `record` into the folder `results` and return its path; an existing record is never overwritten."""
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{record.run}.json"
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        content = json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False)
        temporary.write_text(content + "\n", encoding="utf-8", newline="\n")
        _publish(temporary, path)
    except FileExistsError:
        raise InputError(
            f"{path} is already there, and records are never edited; move it away to run this again"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _publish(temporary: Path, path: Path) -> None:
    """Give the finished file its name in one step, unless that name is taken (FileExistsError)."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError from None
        temporary.replace(path)


def _with_named_variants(content: dict[str, Any]) -> dict[str, Any]:
    """Name what there was one of in version 1: LoRA's variant and the adapters' placement."""
    only = {"lora": {"variant": "plain"}, "bottleneck_adapter": {"placement": "houlsby"}}
    recipe = content.get("recipe_resolved")
    strategy = recipe.get("strategy") if isinstance(recipe, dict) else None
    if not isinstance(recipe, dict) or not isinstance(strategy, dict):
        return content
    named = only.get(str(strategy.get("kind")), {}) | strategy
    return content | {"recipe_resolved": recipe | {"strategy": named}}


_UPGRADES: dict[int, Any] = {1: _with_named_variants}
"""From a schema version to a pure function that turns such a record's dictionary into the next version's."""


def read_record(path: Path) -> Record:
    """Read one record, upgrading it from an older schema version.

    Raises:
        InputError: the file is no record, or was written by a newer pewb.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a record of a run ({error}); remove it or restore it from version control"
        ) from None
    if not isinstance(version, int) or version < 1:
        raise InputError(f"{path} has schema version {version!r}, which never was; restore it from version control")
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version}, this pewb reads up to {SCHEMA_VERSION}; install a newer pewb"
        )
    while version < SCHEMA_VERSION:
        content = _UPGRADES[version](content) | {"schema_version": version + 1}
        version += 1
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path} is not a valid record: {place}: {first['msg']}; restore it from version control"
        ) from None


def read_records(results: str | Path = "results") -> list[Record]:
    """Read every record in the folder `results`, in the order of their names."""
    return [read_record(path) for path in sorted(Path(results).glob("*.json"))]
