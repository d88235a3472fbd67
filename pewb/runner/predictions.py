"""Per-example test predictions, beside the record: what paired tests are made of."""

from __future__ import annotations

import csv
from typing import Any

from pewb.runner.job import Job


def write_predictions(job: Job, examples: Any, predictions: Any) -> str:
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
