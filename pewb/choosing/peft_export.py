"""Records written in the schema of PEFT's published method comparison; what it has no place for goes beside it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pewb.assets import backbones
from pewb.errors import InputError
from pewb.record import Parameters, Record, read_records

_DTYPES = {"fp32": "float32", "fp16": "float16"}

_LEFT_OUT = ("curves", "confusion", "environment", "recipe_given", "traceback", "predictions", "model")
"""Parts of a record that an exported file does not repeat."""


def export_results(results: Path, to: Path) -> tuple[list[Path], list[str]]:
    """Write the records in `results` in PEFT's schema into the folder `to`; return the files, and what was left out and why.

    Raises:
        InputError: a file there is no record, there is none to export, or the folder can't be written.
    """
    records = read_records(results)
    left_out = []
    files = []
    for record in records:
        reason = _why_not(record)
        if reason:
            left_out.append(f"{record.run}: {reason}")
            continue
        path = to / f"{record.strategy}--{record.run}.json"
        try:
            to.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(to_result(record), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"--to {to}: {path} can't be written ({error.strerror}); name another folder") from None
        files.append(path)
    if not files:
        raise InputError(
            f"--results {results}: no record of a successful run there whose main metric is accuracy; a run makes one:"
            " pewb run recipes/lora_sst2.toml"
        )
    return files, left_out


def _why_not(record: Record) -> str | None:
    if record.is_reference:
        return "a reference has no backbone and no strategy"
    if record.status != "success":
        return f"it has no result ({record.status.replace('_', ' ')})"
    return None if record.main_metric == "accuracy" else f"the schema has no place for {record.main_metric}"


def to_result(record: Record) -> dict[str, Any]:
    """Return a successful record in PEFT's schema; what that has no place for stands under `meta_info.pewb`."""
    training = record.recipe_resolved.get("training", {})
    time, counts, peak = record.time, record.parameters or Parameters(trainable=0, head=0, total=0), record.memory.train
    steps = max([step for step, _ in record.curves.loss], default=0)
    batch_size = training.get("batch_size", 1)
    loss = record.curves.loss[-1][1] if record.curves.loss else math.nan
    tokens = int((time.tokens_per_second or 0) * (time.train_seconds or 0))
    evaluations = [
        {"step": step, "valid accuracy": value, "train samples": step * batch_size}
        for step, value in record.curves.validation
    ]
    result = {
        "step": steps,
        "test accuracy": record.metrics["accuracy"].value,
        "train loss": None if math.isnan(loss) else loss,
        "train samples": steps * batch_size,
        "train total tokens": tokens,
    }
    packages = record.environment.get("packages", {})
    names = ("transformers", "peft", "datasets", "bitsandbytes", "torch")
    return {
        "run_info": {
            "created_at": record.started_at,
            "total_time": time.total_seconds or 0.0,
            "experiment_name": f"{record.strategy}/{record.run}",
            "peft_branch": "main",
            "train_config": _train_config(record, training, max(1, steps)),
            "peft_config": _peft_config(record),
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": peak.held_bytes,
            "accelerator_memory_max": peak.held_bytes,
            "accelerator_memory_reserved_99th": peak.held_bytes,
            "train_time": time.train_seconds or 0.0,
            "file_size": record.shipped_bytes or 0,
            "num_trainable_params": counts.trainable,
            "num_total_params": counts.total,
            "status": "success",
            "metrics": [*evaluations, result],
        },
        "meta_info": {
            "model_info": {"sha": None, "created_at": None},
            "dataset_info": {record.task: {"sha": None, "created_at": None}},
            "package_info": {f"{name}-version": packages.get(name) for name in names}
            | {f"{name}-commit-hash": None for name in names},
            "system_info": {"system": "", "accelerator": record.device.name if record.device else "unknown"},
            "pytorch_info": "",
            "pewb": record.model_dump(mode="json", exclude=set(_LEFT_OUT)),
        },
    }


def _train_config(record: Record, training: dict[str, Any], steps: int) -> dict[str, Any]:
    entry = backbones().get(record.backbone)
    storage = {"none": None, "int8": "int8"}.get(record.quantization, "int4")
    schedule = training.get("schedule")
    return {
        "model_id": (entry and entry.hub_id) or record.backbone,
        "dtype": storage or _DTYPES.get(record.precision or "", "bfloat16"),
        "max_seq_length": training.get("max_tokens", 1),
        "batch_size": training.get("batch_size", 1),
        "batch_size_eval": 64,
        "max_steps": steps,
        "eval_steps": steps,
        "compile": False,
        "use_gc": training.get("gradient_checkpointing", False),
        "query_template": "{query}",
        "seed": record.seed,
        "grad_norm_clip": training.get("max_grad_norm", 1.0),
        "optimizer_type": {"sgd": "SGD"}.get(training.get("optimizer", ""), "AdamW"),
        "optimizer_kwargs": {"lr": training.get("learning_rate"), "weight_decay": training.get("weight_decay", 0.0)},
        "lr_scheduler": "cosine" if schedule == "cosine" else None,
        "use_amp": record.precision in ("bf16", "fp16"),
        "autocast_adapter_dtype": True,
        "generation_kwargs": {},
        "attn_implementation": None,
        "init_kv_cache_prefix": None,
    }


def _peft_config(record: Record) -> dict[str, Any] | None:
    """Return PEFT's name of the strategy with the recipe's keys; None, which stands for full tuning there."""
    strategy: dict[str, Any] = dict(record.recipe_resolved.get("strategy", {"kind": record.strategy}))
    kind = strategy.pop("kind", record.strategy)
    if kind == "full":
        return None
    if kind == "peft":
        return dict(strategy.get("config", {}))
    renamed: dict[str, str] = {
        "rank": "r",
        "alpha": "lora_alpha",
        "dropout": "lora_dropout",
        "targets": "target_modules",
    }
    keys: dict[str, Any] = {renamed.get(key, key) if kind == "lora" else key: value for key, value in strategy.items()}
    if kind == "lora":
        variant = keys.pop("variant", "plain")
        keys |= {"use_rslora": variant == "rslora", "use_dora": variant == "dora"}
        keys["init_lora_weights"] = variant if variant in ("pissa", "olora", "loftq") else True
    named: dict[str, Any] = {"peft_type": str(kind).upper(), "base_model_name_or_path": record.backbone}
    return named | keys
