"""Records to rows: what one strategy cost and earned under the same conditions, over its seeds."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from pewb.leaderboard.pooling import largest_memory, mean_metric, mean_time, pooled_metrics
from pewb.leaderboard.row import Row
from pewb.record import NUMERICS_VERSION, Memory, Record, Time, identity_of

_NOT_COMPARED = {
    *("backbone", "seeds", "training.precision", "device.kind", "device.threads"),
    *(f"task.{key}" for key in ("data", "train", "validation", "test", "dataset")),
}
"""Keys of a resolved recipe that are compared by other means (files by their digests), or alter nothing."""
_BUDGET_KEYS = ("training.batch_size", "training.max_tokens")
"""Keys that a table shows wherever its rows differ in them."""


class _Place(NamedTuple):
    """What rows must share to be compared; None is not known."""

    backbone: str
    task: str
    backbone_digest: str | None
    test_digest: str | None
    train_examples: int | None
    main_metric: str | None
    device: str | None


class _Conditions(NamedTuple):
    """What runs must share, but for the seed, to be one row; None is not known."""

    place: _Place
    strategy: str
    settings: str
    quantization: str
    numerics_version: int
    recipe: str
    task_digest: str | None
    precision: str | None


_Key = TypeVar("_Key", _Place, _Conditions)


def rows_of(records: Iterable[Record]) -> list[Row]:
    """Return one row per backbone, task, test set, kind of device, strategy, settings and recipe, over its seeds.

    A run that ended before its test set, its device or its precision was known (it was refused, or failed early) joins
    the one place and row that agree with what is known of it; where there are several, or none, it stands alone. What a
    search that failed left is passed over once the same search has ended well.
    """
    ordered = sorted(_without_failed_searches(list(records)), key=lambda record: record.run)
    places = _completed([_place(record) for record in ordered], ordered)
    conditions = [_conditions(record, place) for record, place in zip(ordered, places, strict=True)]
    members: dict[_Conditions, list[Record]] = defaultdict(list)
    for key, record in zip(_completed(conditions, ordered), ordered, strict=True):
        members[key].append(record)
    newest = max([NUMERICS_VERSION, *(record.numerics_version for record in ordered)])
    distinctions = _distinctions(members)
    return [_row(key, runs, newest, distinctions.get(key, "")) for key, runs in members.items()]


def _without_failed_searches(records: list[Record]) -> list[Record]:
    ended_well = {record.tuning.study: record.tuning.seed for record in records if record.tuning}

    def ends_well(record: Record) -> bool:
        if record.tuning or record.status == "success" or not record.recipe_resolved.get("tune"):
            return False
        searched = (record.recipe_resolved | {"seeds": [seed]} for seed in set(ended_well.values()))
        return any(identity_of(recipe, record.assets) in ended_well for recipe in searched)

    return [record for record in records if not ends_well(record)]


def untouched_row(rows: Sequence[Row]) -> Row | None:
    """Return a row for the untouched model of a group: the mean of its rows' baselines, unquantised where there are such.

    It is measured anew in every run, with the head that the run's seed gives; pooling over seeds is each row's own.
    """
    measured = [row for row in rows if row.baseline]
    members = [row for row in measured if not row.storage] or measured
    if not members:
        return None
    names = sorted(set.intersection(*(set(row.baseline) for row in members)))
    blank = dict.fromkeys(Row.model_fields) | {
        "memory": Memory(),
        "memory_predicted": Memory(),
        "time": Time(),
        "baseline": {},
        "outcomes": {},
        "time_compares": True,
    }
    lists = ("runs", "records", "counted", "warnings", "device_names", "machine_speeds", "plan_errors")
    blank |= {name: [] for name in lists}
    blank |= dict.fromkeys(("settings", "distinction"), "")
    shared = ("backbone", "task", "backbone_digest", "test_digest", "train_examples", "main_metric", "device")
    return Row.model_validate(
        blank
        | {name: getattr(members[0], name) for name in (*shared, "test_examples", "majority_share")}
        | {"kind": "untouched", "strategy": "untouched model", "quantization": members[0].quantization}
        | {"status": "success", "num_outcomes": 0, "seeds": sorted({seed for row in members for seed in row.seeds})}
        | {"numerics_version": members[0].numerics_version, "older_numerics": False}
        | {"metrics": {name: mean_metric([row.baseline[name] for row in members]) for name in names}}
    )


def _place(record: Record) -> _Place:
    return _Place(
        backbone=record.backbone,
        task=record.task,
        backbone_digest=_digest(record, "backbone"),
        test_digest=record.data.get("test_digest"),
        train_examples=record.data.get("train_examples"),
        main_metric=record.main_metric,
        device=record.device.kind if record.device else None,
    )


def _conditions(record: Record, place: _Place) -> _Conditions:
    return _Conditions(
        place=place,
        strategy=record.strategy,
        settings=record.settings,
        quantization=record.quantization,
        numerics_version=record.numerics_version,
        recipe=json.dumps(dict(_compared_keys(record.recipe_resolved)), sort_keys=True),
        task_digest=_digest(record, "task"),
        precision=record.precision,
    )


def _digest(record: Record, kind: str) -> str | None:
    """Return one digest over the contents of an asset's files, whatever the source calls them."""
    contents = sorted({digest for asset in record.assets if asset.kind == kind for digest in asset.digests.values()})
    return hashlib.sha256("\n".join(contents).encode()).hexdigest() if contents else None


def _compared_keys(recipe: dict[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the dotted keys of a resolved recipe, less those that are null or need not be equal within a row."""
    for key, value in recipe.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            yield from _compared_keys(value, f"{name}.")
        elif value is not None and name not in _NOT_COMPARED and name != "task":
            yield name, value


def _completed(keys: list[_Key], records: list[Record]) -> list[_Key]:
    """Return the keys; that of a run without success gives way to the one fullest key that agrees with it."""
    known = set(keys)
    return [
        key if record.status == "success" else _fullest(key, known) for key, record in zip(keys, records, strict=True)
    ]


def _fullest(key: _Key, known: Collection[_Key]) -> _Key:
    if None not in key:
        return key
    fuller = [other for other in known if _says_more(other, key)]
    fullest = [one for one in fuller if not any(_says_more(other, one) for other in fuller)]
    return fullest[0] if len(fullest) == 1 else key


def _says_more(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return one != other and all(theirs is None or theirs == ours for ours, theirs in zip(one, other, strict=True))


def _distinctions(keys: Iterable[_Conditions]) -> dict[_Conditions, str]:
    """Return the recipe keys that tell rows apart which would look alike, and budgets that differ within a place."""
    alike: dict[tuple[Any, ...], list[_Conditions]] = defaultdict(list)
    places: dict[_Place, list[dict[str, Any]]] = defaultdict(list)
    for key in keys:
        alike[(*key[:5], key.precision)].append(key)
        places[key.place].append(json.loads(key.recipe))
    budgets = {
        place: {name for name in _BUDGET_KEYS if len({recipe.get(name) for recipe in recipes}) > 1}
        for place, recipes in places.items()
    }
    told = {}
    for group in alike.values():
        facts = {key: json.loads(key.recipe) | {"training data": (key.task_digest or "unknown")[:8]} for key in group}
        names = sorted({name for values in facts.values() for name in values})
        differing = [
            name
            for name in names
            if name in budgets[group[0].place] or len({json.dumps(values.get(name)) for values in facts.values()}) > 1
        ]
        differing = [name for name in differing if not name.startswith("tune.")] or differing
        for key, values in facts.items():
            told[key] = ", ".join(f"{name}={_shown(values.get(name))}" for name in differing)
    return told


def _shown(value: Any) -> str:
    return "unset" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _row(key: _Conditions, records: list[Record], newest: int, distinction: str) -> Row:
    counted = _counted(records)
    successes = [record for record in counted if record.status == "success"]
    evidence = successes or counted
    outcomes = Counter(record.status for record in counted)
    failures = [record for record in counted if record.status != "success"]
    status = "success" if successes else min(outcomes, key=lambda one: (-outcomes[one], one))
    reasons = [record.reason for record in failures if record.reason and (successes or record.status == status)]
    parameters = _first(record.parameters for record in evidence)
    return Row(
        **key.place._asdict(),
        test_examples=_first(record.data.get("test_examples") for record in evidence),
        majority_share=_first(record.data.get("majority_share") for record in evidence),
        device_names=sorted({record.device.name for record in counted if record.device}),
        kind="reference" if records[0].is_reference else "strategy",
        strategy=key.strategy,
        settings=key.settings,
        quantization=key.quantization,
        precision=key.precision,
        distinction=distinction,
        numerics_version=key.numerics_version,
        older_numerics=key.numerics_version < newest,
        seeds=[record.seed for record in counted],
        runs=[record.run for record in records],
        records=[f"{record.run}.json" for record in records],
        counted=[record.run for record in successes],
        num_outcomes=sum(record.status != "cancelled" or record in counted for record in records),
        status=status,
        reason=reasons[0] if reasons else None,
        outcomes=dict(sorted(outcomes.items())),
        warnings=_warnings(evidence),
        parameters=parameters,
        trainable_share=parameters.trainable / parameters.total if parameters and parameters.total else None,
        num_trials=max((len(record.tuning.trials) for record in evidence if record.tuning), default=None),
        memory=largest_memory([record.memory for record in evidence]),
        memory_predicted=largest_memory([one.memory_predicted for one in evidence if one.memory_predicted]),
        plan_errors=_plan_errors(successes),
        time=mean_time([record.time for record in evidence]),
        machine_speeds=[speed for one in evidence if (speed := one.time.matmul_peak_flops_per_second)],
        shipped_bytes=max(
            (record.shipped_bytes for record in evidence if record.shipped_bytes is not None), default=None
        ),
        metrics=pooled_metrics([record.metrics for record in successes]),
        baseline=pooled_metrics([record.baseline for record in evidence]),
    )


def _counted(records: list[Record]) -> list[Record]:
    """Return one record per seed: the success that finished last, else another's outcome, a cancelled run's least of all."""

    def weight(record: Record) -> tuple[bool, bool, str, str]:
        return record.status == "success", record.status != "cancelled", record.finished_at, record.run

    by_seed = {record.seed: record for record in sorted(records, key=weight)}
    return [by_seed[seed] for seed in sorted(by_seed)]


def _plan_errors(successes: list[Record]) -> list[float]:
    pairs = [
        (one.memory_predicted.train.held_bytes, one.memory.train.held_bytes)
        for one in successes
        if one.memory_predicted
    ]
    return [planned / measured - 1 for planned, measured in pairs if planned and measured]


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _warnings(records: list[Record]) -> list[str]:
    """Return the warnings in the order they came, with the number of seeds where it was not all of them."""
    given = Counter(text for record in records for text in dict.fromkeys(record.warnings))
    return [
        text if count == len(records) else f"{text} ({count} of {len(records)} seeds)" for text, count in given.items()
    ]
