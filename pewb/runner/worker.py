"""The process of one run: reads a job, does it, writes the record, and tells its parent what is going on.

Events go to standard output, one JSON document a line; whatever libraries print goes to standard error, which is a log.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from pewb.errors import InputError
from pewb.record import Memory, Record, Time, write_record
from pewb.runner.job import Job

EVALUATION_BATCH_SIZE = 64


class Events:
    """A reporter that writes events for the parent process."""

    def __init__(self, stream: Any) -> None:
        """Write to the text `stream`."""
        self._stream = stream

    def send(self, event: str, **content: Any) -> None:
        """Write one event."""
        self._stream.write(json.dumps({"event": event, **content}) + "\n")
        self._stream.flush()

    def notice(self, text: str) -> None:
        """Pass a notice on."""
        self.send("notice", text=text)

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        """Pass the progress on."""
        self.send("progress", stage=stage, done=done, total=total, detail=detail)


def main(job_file: str) -> int:
    """Do the job in `job_file`, with events on standard output and everything else on standard error."""
    events = Events(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    return do(Job.model_validate_json(Path(job_file).read_text(encoding="utf-8")), events)


def do(job: Job, events: Events) -> int:
    """Do `job` and record it whatever becomes of it; 0 if there is a record, 2 if the input was at fault."""
    measured: dict[str, Any] = {}
    try:
        status, reason = "success", None
        run_job(job, events, measured)
    except InputError as error:
        events.send("input_error", kind=type(error).__name__, text=str(error))
        return 2
    except (KeyboardInterrupt, BrokenPipeError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        status, reason = "cancelled", "interrupted"
    except Exception as error:  # a run that fails becomes a record that says so
        from pewb.measurement.memory import is_out_of_memory

        status = "out_of_memory" if is_out_of_memory(error) else "failed"
        reason = f"{type(error).__name__}: {error}" if not type(error).__module__.startswith("pewb.") else str(error)
        measured["traceback"] = traceback.format_exc()
    record: Record = job.record(status, reason=reason, **_finished(job, measured))  # type: ignore[arg-type]
    write_record(record, job.results)
    return 0


def run_job(job: Job, events: Events, measured: dict[str, Any]) -> None:
    """Load, evaluate the untouched model, train, evaluate on the test split, save; `measured` is filled on the way."""
    import torch
    from accelerate import Accelerator

    from pewb import assembly
    from pewb.batching import encode
    from pewb.device import choose_device, choose_precision, device_name, environment, limit_memory
    from pewb.evaluation.predictions import predict
    from pewb.measurement.memory import PhaseMemory, release_cached_memory, tensors_of
    from pewb.measurement.parameters import count_parameters
    from pewb.tasks import read_examples
    from pewb.training.loop import Trained, train

    _quieten()
    recipe, training = job.recipe, job.recipe.training
    started = time.perf_counter()
    if recipe.device.threads:
        torch.set_num_threads(recipe.device.threads)
    device = choose_device(recipe.device)
    computing = choose_precision(training.precision, device)
    limit = recipe.device.memory_bytes
    limit_memory(device, limit)
    measured["device"] = {"kind": device.type, "name": device_name(device), "memory_limit_bytes": limit}
    measured["environment"] = environment(device)
    measured["precision"] = computing.precision
    examples = read_examples(job.task, job.task_folder, recipe.limit.model_dump())
    measured["data"] = examples.facts()
    events.send("known", facts=dict(measured))
    events.progress(f"loading {job.backbone}", 0, None)
    assembled = assembly.load(
        job.backbone_public_name,
        job.backbone_folder,
        examples.labels,
        recipe.strategy,
        recipe.quantization,
        training,
        computing,
        job.seed,
    )
    for notice in assembled.notices:
        events.notice(notice)
    measured["notices"] = list(assembled.notices)
    warnings: list[str] = []
    measured["warnings"] = warnings
    splits = {
        name: encode(assembled.tokenizer, split.texts, split.labels, training.max_tokens)
        for name, split in (("train", examples.train), ("validation", examples.validation), ("test", examples.test))
    }
    measured["data"] |= {f"{name}_cut": encoded.num_cut for name, encoded in splits.items()}
    cut = splits["train"].num_cut
    if cut:
        warnings.append(f"{cut} of {len(splits['train'])} training texts were cut to {training.max_tokens} tokens")
    times: dict[str, float] = {"load_seconds": time.perf_counter() - started}
    measured["times"] = times
    accelerator = Accelerator(mixed_precision=computing.autocast, cpu=device.type == "cpu")

    def evaluate(split: str, stage: str, **arguments: Any) -> Any:
        return predict(
            assembled.model,
            assembled.tokenizer,
            splits[split],
            EVALUATION_BATCH_SIZE,
            accelerator.autocast,
            events,
            stage,
            **arguments,
        )

    def validate() -> float:
        value: float = evaluate("validation", "validating").metrics()[job.task.main_metric].value
        release_cached_memory(device)
        return value

    measured["baseline"] = evaluate("test", "evaluating the untouched model").metrics()
    assembly.insert(assembled, training.gradient_checkpointing, job.seed)
    measured["parameters"] = count_parameters(assembled.model, assembled.anatomy)

    train_memory, evaluation_memory = PhaseMemory(device, limit), PhaseMemory(device, limit)
    trained = measured["trained"] = Trained()
    measured["peaks"] = (train_memory, evaluation_memory)
    release_cached_memory(device)
    train(
        assembled.model,
        assembled.tokenizer,
        splits["train"],
        training,
        job.seed,
        accelerator,
        validate,
        train_memory,
        events,
        trained,
    )
    release_cached_memory(device)
    before = time.perf_counter()
    with evaluation_memory.measured():
        predictions = evaluate(
            "test",
            "evaluating on test",
            around_longest=lambda: evaluation_memory.tracked(lambda: tensors_of(assembled.model)),
        )
    times["evaluate_seconds"] = time.perf_counter() - before
    measured["metrics"] = predictions.metrics()
    measured["confusion"] = predictions.confusion(examples.labels)
    if predictions.is_degenerate:
        only = examples.labels[predictions.predicted[0]]
        warnings.append(f"predicts one class only ('{only}')")
    measured["predictions"] = _write_predictions(job, examples, predictions)
    assembled.strategy.save(assembled.model, job.model_folder)
    measured["model"] = str(job.model_folder.relative_to(job.results))
    measured["shipped_bytes"] = sum(
        path.stat().st_size for path in job.model_folder.rglob("*") if path.is_file() and path.suffix != ".md"
    )
    times["total_seconds"] = time.perf_counter() - started


def _finished(job: Job, measured: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured so far as a record's fields."""
    fields = dict(measured)
    trained = fields.pop("trained", None)
    times = fields.pop("times", {})
    peaks = fields.pop("peaks", None)
    if peaks:
        fields["memory"] = Memory(train=peaks[0].peak, evaluation=peaks[1].peak)
    told = list(fields.get("notices", []))
    if trained:
        fields["curves"] = trained.curves
        fields["micro_batch_size"] = trained.micro_batch_size
        times = times | trained.rates() | ({"train_seconds": trained.seconds} if trained.num_steps else {})
        training = job.recipe.training
        asked = training.asked_micro_batch_size
        if trained.micro_batch_size and trained.micro_batch_size < asked:
            told.append(
                f"micro-batches of {trained.micro_batch_size}, not {asked}, to fit the memory; batch_size is unchanged"
            )
        if trained.stopped_at:
            told.append(f"stopped early at step {trained.stopped_at}")
        if trained.best_step not in (None, trained.num_steps):
            told.append(f"the weights are those of step {trained.best_step}, the best on validation")
    fields["notices"] = told
    fields["time"] = Time(**{name: round(value, 3) for name, value in times.items()})
    return fields


def _write_predictions(job: Job, examples: Any, predictions: Any) -> str:
    """Write each test example's key, label, prediction and probabilities beside the record; return the file's name."""
    from pewb.tasks.splits import text_key

    job.results.mkdir(parents=True, exist_ok=True)
    path = job.results / f"{job.run}.predictions.csv"
    names = examples.labels
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["example", "label", "predicted", *(f"p({name})" for name in names)])
        rows = zip(
            examples.test.texts,
            predictions.labels,
            predictions.predicted,
            predictions.probabilities.tolist(),
            strict=True,
        )
        for texts, label, predicted, row in rows:
            writer.writerow([text_key(texts)[:16], names[label], names[predicted], *(f"{share:.6f}" for share in row)])
    return path.name


def _quieten() -> None:
    """Keep the libraries' remarks on every forward out of the log; warnings stay."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
