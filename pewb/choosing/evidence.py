"""What was measured before: rows from records and from PEFT's schema, and which of them speak for a row of a recipe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pewb.assets import digest_file
from pewb.choosing.peft_results import read_results
from pewb.errors import InputError
from pewb.leaderboard import Row, evidence_folder, rows_of
from pewb.leaderboard.outcomes import Outcome, Untested, read_outcomes, tokens_of
from pewb.recipe import Cell, Recipe, parse_recipe
from pewb.record import Record, read_records
from pewb.strategies import Strategy

_BUDGET = ("epochs", "max_steps", "batch_size", "max_tokens")
"""Keys of `training` that say how much is learned from: they must be equal."""

_METHOD = ("optimizer", "lora_plus_ratio")
"""Keys of `training` that make another method: likewise."""

_FREE = {"micro_batch_size", "gradient_checkpointing", "precision", "prefix_cache", "packing"}
"""Keys of `training` that a choice may set, or that alter next to nothing of what is learned."""

SHIPPED = "shipped with pewb"


@dataclass(frozen=True)
class Support:
    """A measured row that speaks for a row of a recipe."""

    row: Row
    recipe: Recipe
    """That was run."""
    chosen: Mapping[str, Any]
    """What a search chose for it."""
    origin: str
    """Whose records: a folder, a file, or those that pewb is shipped with."""
    differs: tuple[str, ...]
    """Keys of its training that the recipe has otherwise."""

    def to_json(self) -> dict[str, Any]:
        """Return the evidence as JSON values."""
        row = self.row
        return {
            "metric": row.main_metric,
            "value": row.main.model_dump(mode="json") if row.main else None,
            "seeds": row.seeds,
            "outcomes": row.outcomes,
            "runs": row.counted,
            "origin": self.origin,
            "backbone": row.backbone,
            "task": row.task,
            "tuned": dict(self.chosen) or None,
            "differs": list(self.differs),
            "train_seconds": row.time.train_seconds,
            "devices": row.device_names,
            "warnings": row.warnings,
        }


@dataclass(frozen=True)
class Foreign:
    """A measured row that speaks for no row of the recipe, shown beside them and never ranked."""

    row: Row
    origin: str
    because: tuple[str, ...]
    """What is otherwise there."""

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        row = self.row
        return {
            "because": list(self.because),
            "backbone": row.backbone,
            "task": row.task,
            "strategy": row.strategy,
            "settings": row.settings,
            "quantization": row.quantization,
            "metric": row.main_metric,
            "value": row.main.model_dump(mode="json") if row.main else None,
            "seeds": row.seeds,
            "origin": self.origin,
        }


@dataclass(frozen=True)
class Evidence:
    """Every measured row, with the records it stands for and the outcomes that paired tests are made of."""

    rows: list[Row]
    records: Mapping[str, Record]
    """By run."""
    origins: Mapping[str, str]
    """Likewise."""
    outcomes: Mapping[str, Outcome | Untested]
    """Likewise."""

    def supports(self, cells: Sequence[Cell], backbones: Sequence[str]) -> tuple[list[Support | None], list[Foreign]]:
        """Return for each cell the row that speaks for it, and the rows of the same strategies that speak for none.

        All of them were tested on the same examples and computed alike: of several test sets and versions of the numerics
        the one that the most cells have.

        Args:
            cells: a recipe's rows.
            backbones: what each was planned for.
        """
        found: dict[tuple[Any, ...], dict[int, list[Support]]] = defaultdict(lambda: defaultdict(list))
        foreign: list[Foreign] = []
        for row in self.rows:
            record = self.records[row.counted[0] if row.counted else row.runs[0]]
            if row.kind != "strategy" or row.status != "success" or row.main is None:
                continue
            origin = self.origins[record.run]
            recipe = _recipe_of(record)
            reasons = [_otherwise(recipe, record, row, *pair) for pair in zip(cells, backbones, strict=True)]
            matching = [place for place, reason in enumerate(reasons) if not reason]
            exact = _exact(recipe, matching, cells) if recipe else []
            for place in exact:
                assert recipe is not None
                chosen = record.tuning.chosen if record.tuning else {}
                differs = (
                    *_differing(recipe, cells[place].recipe),
                    *(["older numerics"] if row.older_numerics else []),
                )
                found[*self._test_set(row), row.numerics_version][place].append(
                    Support(row, recipe, chosen, origin, differs)
                )
            if not exact and (because := _least(reasons, row, cells)):
                foreign.append(Foreign(row, origin, because))
        taken = max(found, key=lambda key: (len(found[key]), _preference(key, cells), key[-1], str(key)), default=None)
        supports = [
            min(found[taken][place], key=_closeness) if taken is not None and found[taken].get(place) else None
            for place in range(len(cells))
        ]
        for key, places in found.items():
            if key != taken:
                assert taken is not None
                other = _other(key, taken)
                rows = {tuple(one.row.runs): one for supports_ in places.values() for one in supports_}
                foreign += [Foreign(one.row, one.origin, (other,)) for one in rows.values()]
        return supports, sorted(foreign, key=lambda one: (len(one.because), one.row.backbone, one.row.label))

    def _test_set(self, row: Row) -> tuple[Any, ...]:
        """Return what rows must share to be ranked."""
        return row.task, row.test_digest, row.main_metric, tokens_of(row.counted, row.main_metric, self.outcomes)


def read_evidence(results: Path | None, files: Sequence[Path] = (), with_shipped: bool = True) -> Evidence:
    """Read the records in `results`, those that pewb is shipped with, and `files` in PEFT's result schema.

    Of runs of the same name the first counts.

    Raises:
        InputError: a file is neither, or `results` is no folder.
    """
    if results is not None and not results.is_dir():
        raise InputError(f"--results {results}: no such folder; a run makes it: pewb run recipes/lora_sst2.toml")
    shipped = evidence_folder() if with_shipped else None
    folders = [(results, f"{results}/")] if results else []
    if shipped and not (results and results.resolve() == shipped.resolve()):
        folders.append((shipped, SHIPPED))
    records: dict[str, Record] = {}
    origins: dict[str, str] = {}
    outcomes: dict[str, Outcome | Untested] = {}
    for folder, name in folders:
        new = [record for record in read_records(folder) if record.run not in records]
        records |= {record.run: record for record in new}
        origins |= {record.run: name for record in new}
        outcomes |= read_outcomes(new, folder)
    for imported in read_results(files):
        record = imported.record
        if record.run not in records:
            records[record.run] = record
            origins[record.run] = str(imported.path)
            outcomes[record.run] = Untested("no predictions are published with it")
    return Evidence(rows_of(records.values()), records, origins, outcomes)


def _recipe_of(record: Record) -> Recipe | None:
    try:
        return parse_recipe(record.recipe_resolved, record.run)
    except InputError:
        return None


def _otherwise(recipe: Recipe | None, record: Record, row: Row, cell: Cell, backbone: str) -> list[str]:
    """Return what keeps a measured row from speaking for a cell; nothing: it does."""
    asked = cell.recipe
    reasons = []
    if record.backbone != backbone:
        reasons.append(f"another backbone: {record.backbone}")
    if told := _another_task(record, asked):
        reasons.append(told)
    if reasons:
        return reasons
    if recipe is None:
        return ["settings that this pewb does not know"]
    if _normal(recipe.strategy) != _normal(asked.strategy):
        reasons.append("other settings of the strategy")
    if recipe.quantization != asked.quantization:
        reasons.append(f"another quantization: {recipe.quantization}")
    if recipe.limit != asked.limit:
        reasons.append("other limits on the examples")
    if recipe.augment != asked.augment:
        reasons.append("other augmentation")
    reasons += [
        f"other training: {key} {getattr(recipe.training, key)}"
        for key in (*_BUDGET, *_METHOD)
        if getattr(recipe.training, key) != getattr(asked.training, key)
    ]
    return reasons


def _another_task(record: Record, asked: Recipe) -> str | None:
    told = f"another task: {record.task}"
    if isinstance(asked.task, list):
        return None if record.task in asked.task else told
    if record.recipe_resolved.get("task") != asked.task.model_dump(mode="json") or asked.task.missing_files():
        return told
    for asset in record.assets:
        for name, digest in asset.digests.items() if asset.kind == "task" and asset.source == "files" else ():
            if Path(name).is_file() and digest_file(Path(name)) != digest:
                return f"another content of {name}"
    return None


def _normal(strategy: Strategy) -> dict[str, Any]:
    """Return a strategy's keys, the order of its sites and what PEFT has by default left aside."""
    keys = strategy.model_dump(mode="json")
    if strategy.kind == "peft":
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING

        defaults = PEFT_TYPE_TO_CONFIG_MAPPING[keys["config"]["peft_type"]]().to_dict()
        config = {key: value for key, value in keys["config"].items() if value != defaults.get(key)}
        keys["config"] = config | {"peft_type": keys["config"]["peft_type"]}
        return keys | {"config": {key: _sorted(value) for key, value in keys["config"].items()}}
    return {key: _sorted(value) for key, value in keys.items()}


def _sorted(value: Any) -> Any:
    is_names = isinstance(value, list | set | tuple) and all(isinstance(one, str) for one in value)
    return sorted(value) if is_names else value


def _least(reasons: Sequence[list[str]], row: Row, cells: Sequence[Cell]) -> tuple[str, ...]:
    """Return what keeps a row from speaking for the cell of its strategy that it comes closest to; nothing: there is none."""
    alike = [
        reason or ["a point between those of the grid"]
        for reason, cell in zip(reasons, cells, strict=True)
        if cell.recipe.strategy.kind == row.strategy
    ]
    least: list[str] = min(alike, key=len, default=[])
    return tuple(least)


def _exact(recipe: Recipe, places: Sequence[int], cells: Sequence[Cell]) -> list[int]:
    """Return the cells that have a recipe's own values where they differ: a point of a grid is no evidence for another."""
    trainings = [cells[place].recipe.training for place in places]
    axes = [key for key in _keys(recipe) if len({str(getattr(one, key)) for one in trainings}) > 1]
    return [
        place
        for place, training in zip(places, trainings, strict=True)
        if all(getattr(training, key) == getattr(recipe.training, key) for key in axes)
    ]


def _keys(recipe: Recipe) -> list[str]:
    return [key for key in type(recipe.training).model_fields if key not in _FREE]


def _differing(recipe: Recipe, asked: Recipe) -> list[str]:
    ours, theirs = asked.training.model_dump(mode="json"), recipe.training.model_dump(mode="json")
    told = [
        f"{key} {theirs[key]}" for key in ours if key not in (*_BUDGET, *_METHOD, *_FREE) and ours[key] != theirs[key]
    ]
    if bool(recipe.tune) != bool(asked.tune):
        told.append("tuned" if recipe.tune else "not tuned")
    elif recipe.tune and recipe.tune != asked.tune:
        told.append("tuned otherwise")
    if recipe.tune and asked.tune:
        told = [text for text in told if not text.startswith("learning_rate ")]
    return told


def _closeness(support: Support) -> tuple[Any, ...]:
    """Return what the row to take among several is the least of: as asked, with many successful seeds, tuned."""
    row = support.row
    return len(support.differs), -len(row.counted), -(row.num_trials or 0), row.device or "", row.label, row.runs


def _other(key: tuple[Any, ...], taken: tuple[Any, ...]) -> str:
    """Return in what a row's place differs from that of the rows that count."""
    if key[:-1] == taken[:-1]:
        return "other numerics"
    return "other tokens of the test set" if key[:3] == taken[:3] else "another test set"


def _preference(key: tuple[Any, ...], cells: Sequence[Cell]) -> int:
    """Return how early a recipe names a test set's task."""
    names = cells[0].recipe.task
    return -names.index(key[0]) if isinstance(names, list) and key[0] in names else 0
