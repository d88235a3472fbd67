from collections.abc import Callable
from typing import Any

import pytest

from pewb.record import AssetRecord, Device, Memory, Metric, Parameters, Peak, Record, Time, identity_of, run_name


def _metric(value: float) -> Metric:
    return Metric(value=value, low=max(0.0, value - 0.02), high=min(1.0, value + 0.018))


def _assets(backbone: str, backbone_digest: str) -> list[AssetRecord]:
    return [
        AssetRecord(name=backbone, kind="backbone", source="test", digests={"model.safetensors": backbone_digest}),
        AssetRecord(name="movies", kind="task", source="test", digests={"train.tsv": "7" * 64}),
    ]


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    """A factory of records; any field of a record can be given, and these shortcuts."""
    count = 0

    def make(
        *,
        accuracy: float = 0.8,
        baseline: float = 0.5,
        test_digest: str = "e" * 64,
        backbone_digest: str = "b" * 64,
        device_kind: str = "cpu",
        recipe: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Record:
        nonlocal count
        count += 1
        fields = {
            "backbone": "minilm-l6",
            "task": "movies",
            "strategy": "lora",
            "quantization": "none",
            "seed": 0,
        } | fields
        training = {"strategy": {"kind": fields["strategy"]}, "seeds": [fields["seed"]]} | (recipe or {})
        assets = _assets(fields["backbone"], backbone_digest)
        identity = identity_of(training, assets)
        name = run_name(*(fields[key] for key in ("backbone", "task", "strategy", "quantization", "seed")), identity)
        defaults: dict[str, Any] = {
            "run": f"{name}-{count}",
            "identity": identity,
            "status": "success",
            "started_at": "2025-01-01T00:00:00+00:00",
            "finished_at": f"2025-01-01T00:{count // 60:02d}:{count % 60:02d}+00:00",
            "settings": "lr 1e-3",
            "precision": "fp32",
            "device": Device(kind=device_kind, name={"cpu": "EPYC", "cuda": "L4"}[device_kind]),
            "recipe_given": {},
            "recipe_resolved": training,
            "assets": assets,
            "data": {"test_examples": 1061, "test_digest": test_digest, "majority_share": 0.505},
        }
        measured: dict[str, Any] = {
            "parameters": Parameters(trainable=74_114, head=770, total=22_787_330),
            "memory": Memory(
                train=Peak(
                    peak_allocated_bytes=300 * 2**20,
                    peak_reserved_bytes=2 * 2**30 if device_kind == "cuda" else None,
                    peak_resident_bytes=900 * 2**20,
                )
            ),
            "time": Time(train_seconds=61.0, samples_per_second=250.5),
            "shipped_bytes": 300_000,
            "main_metric": "accuracy",
            "metrics": {"accuracy": _metric(accuracy), "f1": _metric(accuracy)},
            "baseline": {"accuracy": _metric(baseline)},
        }
        if fields.get("status", "success") == "success":
            defaults |= measured
        return Record.model_validate(defaults | fields)

    return make


@pytest.fixture(scope="session")
def make_early_failure(make_record: Callable[..., Record]) -> Callable[..., Record]:
    """A factory of records of runs that ended before anything was read."""

    def make(**fields: Any) -> Record:
        return make_record(
            **(
                {"status": "refused", "reason": "can't be", "assets": [], "data": {}, "device": None, "precision": None}
                | fields
            )
        )

    return make
