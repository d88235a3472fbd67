"""Results in the schema of PEFT's published method comparison (`method_comparison/*/results/*.json`), read as records."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pewb.anatomy import SITE_SUFFIXES
from pewb.assets import backbones
from pewb.errors import InputError
from pewb.evaluation.intervals import proportion
from pewb.record import (
    SCHEMA_VERSION,
    Device,
    Memory,
    Metric,
    Parameters,
    Peak,
    Record,
    Time,
)

_TEST_EXAMPLES = {"gsm8k": 1319}
"""Test examples of data sets whose results are published without their number (GSM8K: Cobbe et al. 2021, section 2)."""

_TASKS = {"metamath, gsm8k": "metamathqa-gsm8k"}
"""Names of the catalogue for data sets that are trained on and tested with."""

_PASSED_OVER = (
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "fan_in_fan_out", "megatron_config", "megatron_core"),
)
"""Keys of a PEFT configuration that do not alter what is trained."""

_STORAGE = {"int8": "int8", "int4": "fp4"}
"""From PEFT's `dtype` to a quantization: its int4 is bitsandbytes' default, which is fp4."""

_PRECISION = {"float32": "fp32", "bfloat16": "bf16-true", "float16": "fp16"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class _TrainConfig(_Section):
    model_id: str
    dtype: Literal["float32", "float16", "bfloat16", "int8", "int4"]
    max_seq_length: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    max_steps: int = Field(ge=1)
    seed: int = 0
    optimizer_kwargs: dict[str, Any] = {}
    optimizer_type: str = "AdamW"
    use_gc: bool = False
    lr_scheduler: str | None = None
    grad_norm_clip: float = 1.0


class _RunInfo(_Section):
    created_at: str
    total_time: float = Field(ge=0, allow_inf_nan=False)
    experiment_name: str
    train_config: _TrainConfig
    peft_config: dict[str, Any] | None
    error_msg: str = ""


class _TrainInfo(_Section):
    train_time: float = Field(ge=0, allow_inf_nan=False)
    file_size: int | None = None
    num_trainable_params: int = Field(ge=0)
    num_total_params: int = Field(ge=0)
    status: Literal["success", "failed", "canceled"]
    metrics: list[dict[str, Any]]

    def memory(self, name: str) -> int | None:
        """Return a figure of memory, by its name now or the one it had until 2025."""
        extra = self.model_extra or {}
        value = extra.get(f"accelerator_memory_{name}", extra.get(f"cuda_memory_{name}"))
        return value if isinstance(value, int) else None


class _MetaInfo(_Section):
    model_info: dict[str, Any] | None = None
    dataset_info: dict[str, Any] = {}
    package_info: dict[str, Any] = {}
    system_info: dict[str, Any] = {}
    pewb: dict[str, Any] | None = None
    """What the schema has no place for, in files that pewb wrote."""


class _Result(_Section):
    run_info: _RunInfo
    train_info: _TrainInfo
    meta_info: _MetaInfo


@dataclass(frozen=True)
class Imported:
    """One file as a record, and what of it has no place in one."""

    path: Path
    record: Record
    unmapped: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the row in a few facts, as JSON values."""
        record = self.record
        return {
            "file": str(self.path),
            "run": record.run,
            "status": record.status,
            "backbone": record.backbone,
            "task": record.task,
            "strategy": record.recipe_resolved.get("strategy", {"kind": record.strategy}),
            "settings": record.settings,
            "quantization": record.quantization,
            "precision": record.precision,
            "seed": record.seed,
            "parameters": record.parameters.model_dump() if record.parameters else None,
            "memory": record.memory.model_dump(),
            "train_seconds": record.time.train_seconds,
            "metrics": {name: metric.model_dump() for name, metric in record.metrics.items()},
            "unmapped": self.unmapped,
        }


def read_results(paths: Sequence[str | Path]) -> list[Imported]:
    """Read files of PEFT's schema; a folder stands for every `.json` in it.

    Raises:
        InputError: there is no such file, or it is not of that schema.
    """
    files = []
    for path in map(Path, paths):
        found = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not found:
            raise InputError(f"{path}: no .json file in this folder; name results of PEFT's method comparison")
        files += found
    return [read_result(path) for path in files]


def read_result(path: Path) -> Imported:
    """Read one file of PEFT's schema.

    Raises:
        InputError: there is no such file, or it is not of that schema.
    """
    way_out = (
        "name a result of PEFT's method comparison (method_comparison/*/results/*.json),"
        " or a file that pewb evidence export has written"
    )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        result = _Result.model_validate(content)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); {way_out}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise InputError(f"{path} is not of PEFT's result schema: {place}: {first['msg']}; {way_out}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); {way_out}") from None
    if result.meta_info.pewb is not None:
        return Imported(path, _own(result.meta_info.pewb, path))
    try:
        return _foreign(result, path)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not of PEFT's result schema: {error}; {way_out}") from None


def _own(content: dict[str, Any], path: Path) -> Record:
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} was exported by another pewb (schema version {version}, this one's is {SCHEMA_VERSION});"
            " export it anew: pewb evidence export"
        )
    try:
        return Record.model_validate(content | {"recipe_given": {}})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: meta_info.pewb.{place}: {first['msg']}; export it anew") from None


def _foreign(result: _Result, path: Path) -> Imported:
    run, train, meta = result.run_info, result.train_info, result.meta_info
    config = run.train_config
    strategy, unmapped = _strategy(run.peft_config)
    if config.optimizer_type != "AdamW":
        unmapped.append(f"optimizer {config.optimizer_type}")
    datasets = ", ".join(meta.dataset_info)
    task = _TASKS.get(datasets, datasets) or run.experiment_name.partition("/")[0]
    backbone = _catalogue_name(config.model_id)
    content = json.dumps(result.model_dump(mode="json"), sort_keys=True)
    training: dict[str, Any] = {
        "max_steps": config.max_steps,
        "batch_size": config.batch_size,
        "max_tokens": config.max_seq_length,
        "optimizer": {"AdamW": "adamw", "SGD": "sgd"}.get(config.optimizer_type, config.optimizer_type),
        "learning_rate": config.optimizer_kwargs.get("lr"),
        "weight_decay": config.optimizer_kwargs.get("weight_decay", 0.01),
        "schedule": config.lr_scheduler or "constant",
        "max_grad_norm": config.grad_norm_clip or 1e9,
        "gradient_checkpointing": config.use_gc,
    }
    quantization = _STORAGE.get(config.dtype, "none")
    status = {"success": "success", "failed": "failed", "canceled": "cancelled"}[train.status]
    metrics, told = _metrics(train, list(meta.dataset_info)) if status == "success" else ({}, [])
    system = meta.system_info
    record = Record(
        run=run.experiment_name.replace("/", "--"),
        identity=hashlib.sha256(content.encode()).hexdigest(),
        status=status,  # type: ignore[arg-type]
        reason=run.error_msg or None,
        started_at=run.created_at,
        finished_at=run.created_at,
        backbone=backbone,
        task=task,
        strategy=strategy["kind"],
        settings=_described(strategy, config),
        quantization=quantization,
        seed=config.seed,
        precision=_PRECISION.get(config.dtype),
        micro_batch_size=config.batch_size,
        device=Device(kind="cuda", name=str(system.get("accelerator", system.get("gpu", "unknown")))),
        recipe_given={},
        recipe_resolved={
            "backbone": backbone,
            "task": task,
            "quantization": {"kind": quantization},
            "seeds": [config.seed],
            "strategy": strategy,
            "training": training,
        },
        parameters=Parameters(trainable=train.num_trainable_params, head=0, total=train.num_total_params),
        memory=Memory(train=Peak(peak_reserved_bytes=train.memory("max"))),
        time=Time(train_seconds=train.train_time, total_seconds=run.total_time),
        shipped_bytes=train.file_size,
        main_metric="accuracy" if metrics else None,
        metrics=metrics,
    )
    return Imported(path, record, unmapped + told)


def _metrics(train: _TrainInfo, datasets: list[str]) -> tuple[dict[str, Metric], list[str]]:
    value = (train.metrics[-1] if train.metrics else {}).get("test accuracy")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return {}, ["no test accuracy between 0 and 1"]
    for name in datasets:
        count = _TEST_EXAMPLES.get(name, 0)
        if count and math.isclose(value * count, round(value * count), abs_tol=1e-6):
            return {"accuracy": proportion(round(value * count), count)}, []
    bare = Metric(value=value, low=value, high=value, interval="unknown")
    return {"accuracy": bare}, ["no interval: the number of test examples is not known"]


def _catalogue_name(model_id: str) -> str:
    names = [name for name, entry in backbones().items() if entry.hub_id == model_id]
    return names[0] if names else model_id


def _strategy(config: dict[str, Any] | None) -> tuple[dict[str, Any], list[str]]:
    """Return a recipe's strategy that a PEFT configuration stands for, and what of it has no place there."""
    if config is None:
        return {"kind": "full"}, []
    defaults = _defaults(config.get("peft_type"))
    given = {
        key: value
        for key, value in config.items()
        if key not in _PASSED_OVER and value not in _UNSET and (key not in defaults or value != defaults[key])
    }
    if config.get("peft_type") == "LORA" and (lora := _lora(given)):
        return lora, []
    kept = {"peft_type": config.get("peft_type")} | given
    return {"kind": "peft", "config": kept}, []


_UNSET: tuple[Any, ...] = (None, {}, [])


def _defaults(peft_type: Any) -> dict[str, Any]:
    """Return what PEFT takes for each key of this kind of configuration that is not given."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = PEFT_TYPE_TO_CONFIG_MAPPING.get(peft_type)
    return {one.name: one.default for one in fields(kind)} if kind else {}


def _lora(given: dict[str, Any]) -> dict[str, Any] | None:
    """Return LoRA's keys, or None if the configuration says more than they can."""
    rest = dict(given)
    modules = rest.pop("target_modules", None)
    sites = [_site(name) for name in modules] if isinstance(modules, list) else [None]
    initial = rest.pop("init_lora_weights", True)
    variants = [name for name, key in (("rslora", "use_rslora"), ("dora", "use_dora")) if rest.pop(key, False)]
    variants += [initial] if initial in ("pissa", "olora", "loftq") else []
    known = {
        "rank": rest.pop("r", 8),
        "alpha": float(rest.pop("lora_alpha", 8)),
        "dropout": float(rest.pop("lora_dropout", 0.0)),
    }
    if rest or None in sites or len(variants) > 1 or initial not in (True, "pissa", "olora", "loftq"):
        return None
    targets = sorted({site for site in sites if site})
    return {"kind": "lora", "variant": variants[0] if variants else "plain", "targets": targets} | known


def _site(module: str) -> str | None:
    return next((site for site, suffixes in SITE_SUFFIXES.items() if module in suffixes), None)


def _described(strategy: dict[str, Any], config: _TrainConfig) -> str:
    rate = config.optimizer_kwargs.get("lr")
    details = [strategy.get("variant", "")] if strategy.get("variant") != "plain" else []
    details += [f"{short}={strategy[key]:g}" for short, key in (("r", "rank"), ("a", "alpha")) if key in strategy]
    if strategy["kind"] == "peft":
        sizes = [f"{key}={value}" for key, value in strategy["config"].items() if key in ("r", "num_virtual_tokens")]
        details = [str(strategy["config"]["peft_type"]), *sizes]
    details += ["+".join(strategy["targets"])] if "targets" in strategy else []
    words = [" ".join(part for part in details if part), f"lr {rate:g}" if rate else "", f"{config.max_steps} steps"]
    return ", ".join(word for word in words if word)
