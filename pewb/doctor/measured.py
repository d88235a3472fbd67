"""A dozen small cells, trained here as any run is: what their plans said beside what was measured, as a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pewb.doctor.small_models import SPLITS, size_for, write_models
from pewb.quiet import quieten_libraries
from pewb.record import Peak, Record
from pewb.reporting import Reporter
from pewb.units import format_bytes

RECIPES = ("encoder.toml", "language_model.toml")


@dataclass(frozen=True)
class Pair:
    """One kind of memory in one phase of a cell, in bytes."""

    phase: str
    """training or evaluation"""
    kind: str
    """allocated or reserved"""
    planned: int
    measured: int

    @property
    def error(self) -> float:
        """How far the plan is above the measurement, as a share of it."""
        return self.planned / self.measured - 1


@dataclass(frozen=True)
class Measured:
    """A cell, and how its plan stands against its run."""

    name: str
    status: str
    reason: str | None
    pairs: list[Pair]

    def to_json(self) -> dict[str, Any]:
        """Return the cell as JSON values."""
        shown = [
            {"phase": one.phase, "kind": one.kind, "planned": one.planned, "measured": one.measured}
            for one in self.pairs
        ]
        return {"name": self.name, "status": self.status, "reason": self.reason, "pairs": shown}


@dataclass(frozen=True)
class Measurements:
    """All cells, and on what they were measured."""

    device: dict[str, Any]
    environment: dict[str, Any]
    cells: list[Measured]

    @property
    def are_complete(self) -> bool:
        """Whether every cell was planned and trained, or refused for a reason."""
        return all(cell.pairs or cell.status == "refused" for cell in self.cells)

    def errors(self, phase: str, kind: str) -> list[float]:
        """Return the errors of one kind of memory in one phase."""
        return [one.error for cell in self.cells for one in cell.pairs if (one.phase, one.kind) == (phase, kind)]

    def to_json(self) -> dict[str, Any]:
        """Return what `pewb doctor --measure --json` prints."""
        return {
            "device": self.device,
            "environment": self.environment,
            "cells": [cell.to_json() for cell in self.cells],
            "summary": {
                f"{phase}_{kind}": {"median": statistics.median(map(abs, found)), "worst": max(found, key=abs)}
                for phase, kind in self._columns()
                if (found := self.errors(phase, kind))
            },
        }

    def to_markdown(self) -> str:
        """Return the table, to be pasted into an issue."""
        columns = self._columns()
        head = ["cell", *(f"{phase} {kind}: planned | measured | off" for phase, kind in columns)]
        lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * 3 * len(columns)}"]
        for cell in self.cells:
            found = {(one.phase, one.kind): one for one in cell.pairs}
            texts = [_triple(found.get(column)) for column in columns]
            told = cell.name if cell.pairs else f"{cell.name}: {cell.status}, {cell.reason}"
            lines.append(f"| {' | '.join([told.replace('|', '/'), *texts])} |")
        lines.append("")
        lines += self._conclusions(columns)
        packages = ", ".join(f"{name} {number}" for name, number in self.environment.get("packages", {}).items())
        where = (
            f"{self.device.get('name')}, {self.environment.get('platform')}, Python {self.environment.get('python')}"
        )
        lines.append(f"Measured on {where}, {packages}.")
        return "\n".join(lines)

    def _columns(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((one.phase, one.kind) for cell in self.cells for one in cell.pairs))

    def _conclusions(self, columns: Sequence[tuple[str, str]]) -> Iterator[str]:
        for phase, kind in columns:
            found = self.errors(phase, kind)
            worst = max(found, key=abs)
            yield (
                f"Of {len(found)} cells, memory {kind} in {phase}: median {statistics.median(map(abs, found)):.1%} off,"
                f" worst {worst:+.1%}.  "
            )


def measure(reporter: Reporter) -> Measurements:
    """Train the doctor's cells on the device that a run takes here, each in a process of its own, and keep nothing.

    Raises:
        InputError: the device is none.
        KeyboardInterrupt: it was broken off.
    """
    from pewb.device import choose_device
    from pewb.recipe import DeviceSection, load_recipe
    from pewb.runner.comparison import Comparison
    from pewb.runner.prepare import prepare

    quieten_libraries()
    size = size_for(choose_device(DeviceSection()).type)
    records: list[Record] = []
    with TemporaryDirectory(prefix="pewb-doctor-") as name:
        folder = Path(name) / "doctor"
        reporter.progress("making small backbones", 0, None)
        write_models(size, folder)
        for recipe in RECIPES:
            with as_file(files("pewb.doctor") / recipe) as path:
                loaded = load_recipe(path, list(_here(recipe, folder, size.num_tokens)))
            rows = prepare(loaded, folder / "results", reporter)
            done = Comparison(rows, folder / "results", reporter, with_references=False).run()
            records += [record for record, _ in done]
    known = next((one for one in records if one.status == "success"), records[0])
    return Measurements(
        known.device.model_dump() if known.device else {},
        dict(known.environment),
        [_measured(record) for record in records],
    )


def _here(recipe: str, folder: Path, num_tokens: int) -> Iterator[str]:
    """Yield what a shipped recipe is told of where its files are, and how long the texts are."""
    yield f"backbone={folder / Path(recipe).stem}"
    for split in SPLITS:
        yield f"task.{split}={folder / split}.csv"
    yield f"training.max_tokens={num_tokens}"


def _measured(record: Record) -> Measured:
    training = record.recipe_resolved["training"]
    parts = [Path(record.backbone).name, f"{record.strategy} {record.settings.partition('lr ')[0]}".rstrip(", ")]
    if record.quantization != "none":
        parts.append(record.quantization)
    if training["gradient_checkpointing"]:
        parts.append("checkpointing")
    parts += [
        f"{key.replace('_', '-')} {training[key]}"
        for key, usual in (("micro_batch_size", None), ("optimizer", "adamw"), ("precision", "auto"))
        if training[key] != usual
    ]
    pairs = list(_pairs(record)) if record.status == "success" else []
    why = record.reason or next(iter(record.notices if not pairs else ()), "")
    reason = why.partition("\n")[0] or None
    return Measured(", ".join(parts), record.status, reason, pairs)


def _pairs(record: Record) -> Iterator[Pair]:
    if record.memory_predicted is None:
        return
    for phase, planned, found in (
        ("training", record.memory_predicted.train, record.memory.train),
        ("evaluation", record.memory_predicted.evaluation, record.memory.evaluation),
    ):
        for kind in ("allocated", "reserved"):
            one, other = _peak(planned, kind), _peak(found, kind)
            if one and other:
                yield Pair(phase, kind, one, other)


def _peak(peak: Peak, kind: str) -> int | None:
    return peak.peak_allocated_bytes if kind == "allocated" else peak.peak_reserved_bytes


def _triple(one: Pair | None) -> str:
    return f"{format_bytes(one.planned)} | {format_bytes(one.measured)} | {one.error:+.1%}" if one else "– | – | –"
