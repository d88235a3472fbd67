"""The committed records: each is read, each predictions file is its record's, and the page is what they give."""

import csv

import pytest

from pewb.leaderboard import Leaderboard
from pewb.record import read_record, read_records
from tests.test_recipe import ROOT

RECORDS = sorted((ROOT / "results").glob("*.json"))


def test_the_leaderboard_is_what_the_records_give():
    board = Leaderboard(read_records(ROOT / "results"))
    assert board.to_markdown() == (ROOT / "leaderboard.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_predictions_give_the_recorded_accuracy(path):
    record = read_record(path)
    if record.predictions is None:
        assert record.status != "success"
        return
    with (path.parent / record.predictions).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == record.data["test_examples"] == sum(map(sum, record.confusion.counts))
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert right / len(rows) == pytest.approx(record.metrics["accuracy"].value)
