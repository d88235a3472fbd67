"""What runs came to: a line for each, or all that is known where there are few."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from pewb.screen.consoles import out
from pewb.units import format_bytes, format_count, format_seconds

_FEW = 3
"""So many runs are told with all that is known of them; of more, a line for each."""


def print_runs(done: list[Any]) -> None:
    """Print what each (record, path) says of its run."""
    if len(done) > _FEW:
        _print_lines(done)
        return
    for record, path in done:
        good = record.status == "success"
        out.print()
        out.print(
            Text.assemble(
                (record.strategy, "bold"),
                f" on {record.backbone}, {record.task}, seed {record.seed}: ",
                (record.status, "green" if good else "red"),
            )
        )
        for name, text in _facts(record, path):
            style = "yellow" if name == "warning" else ""
            out.print(Text.assemble("  ", (f"{name:<21}", style), text))


def _print_lines(done: list[Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for record, _ in done:
        metric = record.metrics.get(record.main_metric)
        value = (
            f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"
            if metric
            else (record.reason or "").splitlines()[0]
        )
        what = f"{record.strategy}: {record.settings}" + (
            f", {record.quantization}" if record.quantization != "none" else ""
        )
        style = {"success": "green", "refused": "yellow"}.get(record.status, "red")
        table.add_row(Text(what), f"seed {record.seed}", Text(record.status, style), Text(value))
    out.print(table, soft_wrap=False)


def _facts(record: Any, path: Path) -> Iterator[tuple[str, str]]:
    """Yield what the screen says of a run: a name and a text for each line."""
    if record.reason:
        yield "reason", record.reason.splitlines()[0]
    for name, metric in record.metrics.items():
        untouched = record.baseline.get(name)
        before = f"   untouched model {untouched.value:.3f}" if untouched else ""
        yield name.replace("_", " "), f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]{before}"
    if record.parameters:
        counts = record.parameters
        trainable, total, head = map(format_count, (counts.trainable, counts.total, counts.head))
        yield "trainable", f"{trainable} of {total} ({counts.trainable / counts.total:.2%}), head {head}"
    if record.status == "success":
        peak, time_ = record.memory.train, record.time
        held = f"{format_bytes(peak.peak_reserved_bytes)} reserved, " if peak.peak_reserved_bytes is not None else ""
        live, resident = format_bytes(peak.peak_allocated_bytes), format_bytes(peak.peak_resident_bytes)
        yield "memory in training", f"{live} of live tensors, {held}{resident} resident{_planned(record)}"
        took, total = format_seconds(time_.train_seconds), format_seconds(time_.total_seconds)
        yield "time", f"{took} training at {time_.samples_per_second or 0:.0f} samples/s, {total} in all"
        if time_.model_flops_utilization is not None:
            reached, most = (value / 1e9 for value in (time_.flops_per_second, time_.matmul_peak_flops_per_second))
            yield "use of the device", f"{time_.model_flops_utilization:.0%}: {reached:.0f} of {most:.0f} GFLOP/s"
        yield "precision", record.precision
        folder = path.parent / record.model
        here = f"in {folder}" if folder.is_dir() else "which is not in this folder; --rerun makes it"
        yield "to ship", f"{format_bytes(record.shipped_bytes)} {here}"
    yield from (("notice", text) for text in record.notices)
    yield from (("warning", text) for text in record.warnings)
    if record.traceback and record.status == "failed":
        yield "traceback", "in the record"
    yield "record", str(path)


def _planned(record: Any) -> str:
    """Return what the plan had said of a run's training, if there was one."""
    if record.memory_predicted is None:
        return ""
    train = record.memory_predicted.train
    return f"; planned {format_bytes(train.peak_reserved_bytes or train.peak_allocated_bytes)}"
