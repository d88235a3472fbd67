"""The doctor's cells are trained as any run is, and their table says how far the plan was off."""

from pathlib import Path

import pytest

from pewb.doctor import measure, measured, small_models
from pewb.doctor.measured import Measured, Measurements, Pair
from tests.assets.conftest import Reports

ONE = """\
backbone = "language_model"
task     = { kind = "causal_lm", completion = "text", train = "train.csv", validation = "validation.csv", test = "test.csv" }
training = { batch_size = 4, max_steps = 1 }

[[compare]]
strategy = "lora"

[[compare]]
strategy     = "lora"
quantization = "nf4"
training     = { optimizer = "sgd", learning_rate = 1e30 }
"""


def test_a_cell_is_planned_trained_and_told(monkeypatch, tmp_path):
    (tmp_path / "language_model.toml").write_text(ONE, encoding="utf-8")
    monkeypatch.setattr(measured, "RECIPES", (str(tmp_path / "language_model.toml"),))
    monkeypatch.setitem(small_models.SIZES, "cpu", small_models.Size(64, 2, 400, 16, 8))
    found = measure(Reports())
    [good, bad] = found.cells
    assert (good.name, good.status, good.reason) == ("language_model, lora r=8 a=16 query+value", "success", None)
    assert [(one.phase, one.kind) for one in good.pairs] == [("training", "allocated"), ("evaluation", "allocated")]
    for one in good.pairs:
        assert one.error == pytest.approx(0, abs=0.05)
    assert bad.status == "failed"
    assert "learning_rate" in bad.reason
    assert not found.are_complete
    page = found.to_markdown()
    assert "nf4, optimizer sgd: failed, " in page
    assert f"torch {found.environment['packages']['torch']}" in page
    assert str(Path.home()) not in page


def test_the_table_has_as_many_columns_in_every_row_and_names_the_worst():
    def cell(name, *errors):
        kinds = [("training", "allocated"), ("training", "reserved")]
        pairs = [Pair(*kind, 1000 + error, 1000) for kind, error in zip(kinds, errors, strict=False)]
        return Measured(name, "success" if pairs else "out_of_memory", None if pairs else "too | much", pairs)

    found = Measurements({"name": "a GPU"}, {}, [cell("a", 10, -30), cell("b", 20, 0), cell("c")])
    lines = found.to_markdown().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in table} == {8}
    assert "+1.0%" in table[2]
    assert "-3.0%" in table[2]
    assert table[4].startswith("| c: out_of_memory, too / much | – |")
    assert any("allocated in training: median 1.5% off, worst +2.0%" in line for line in lines)
    assert any("reserved in training: median 1.5% off, worst -3.0%" in line for line in lines)
    assert found.to_json()["summary"]["training_reserved"] == pytest.approx({"median": 0.015, "worst": -0.03})


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_dozen_cells_are_within_a_percent_on_this_device():
    found = measure(Reports())
    assert found.are_complete
    assert len(found.cells) == 12
    assert sum(cell.status == "success" for cell in found.cells) == 12
    for kind in ("allocated", "reserved"):
        assert all(abs(error) <= 0.01 for error in found.errors("training", kind)), found.to_markdown()
