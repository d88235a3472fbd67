"""A classical predictor on the task's own examples, measured as every run is."""

from __future__ import annotations

import time
from typing import Any

from pewb.record import Time, Trial, Tuning
from pewb.runner.job import ReferenceJob
from pewb.runner.predictions import write_predictions


def run_reference(job: ReferenceJob, events: Any, measured: dict[str, Any]) -> None:
    """Fit the predictor, predict the test split, write the predictions; `measured` is filled on the way."""
    from pewb.references import REFERENCES
    from pewb.tasks import read_examples

    started = time.perf_counter()
    examples = read_examples(job.task, job.task_folder, job.limit.model_dump())
    measured["data"] = examples.facts()
    events.progress("fitting", 0, None)
    reference = REFERENCES[job.reference](job.task, examples)
    measured["settings"] = reference.settings
    predictions = reference.predictions
    measured["metrics"] = predictions.metrics()
    measured["confusion"] = predictions.confusion()
    measured["predictions"] = write_predictions(job, examples.test, predictions.table())
    if reference.trials:
        trials = [Trial(values=values, state="complete", validation=value) for values, value in reference.trials]
        measured["tuning"] = Tuning(study=job.identity, seed=0, trials=trials, chosen=reference.chosen)
    measured["time"] = Time(total_seconds=round(time.perf_counter() - started, 3))
