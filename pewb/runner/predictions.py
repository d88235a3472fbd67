"""Per-example test predictions, beside the record: what paired tests are made of."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from pewb.runner.job import Job
from pewb.tasks import Split

if TYPE_CHECKING:
    from pewb.evaluation.tables import Table


def write_predictions(job: Job, test: Split, table: Table) -> str:
    """Write each test example's key and its row of `table` beside the record; return the file's name."""
    from pewb.tasks.splits import text_key

    job.results.mkdir(parents=True, exist_ok=True)
    path = job.results / f"{job.run}.predictions.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["example", *table.columns])
        for texts, row in zip(test.texts, table.rows, strict=True):
            writer.writerow([text_key(texts)[:16], *row])
    return path.name
