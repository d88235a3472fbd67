"""The screen: bars that fit, plain lines in pipes, documents that survive."""

import json
import sys
from io import StringIO

import pytest
from rich.console import Console

from pewb.reporting import Step
from pewb.screen import print_json, progress
from pewb.screen.consoles import gathered


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_fits_the_terminal_with_everything_in_it(monkeypatch, width):
    shown_on = StringIO()
    console = Console(file=shown_on, force_terminal=True, width=width, color_system=None, legacy_windows=False)
    monkeypatch.setattr(progress, "err", console)
    with progress.reporting() as bar:
        bar.progress("evaluating the untouched model", 64, 64)
        for done in (1, 50, 350):
            bar.progress("training", done, 700, "loss 0.693  1250 samples/s  memory 1023.9 MiB")
            shown = _lines(bar)
        bar.progress("validating", 64, 64)
        assert [line.split()[0] for line in _lines(bar)] == ["validating"], "one bar at a time"
        bar.progress("training", 351, 700, "loss 0.693  1250 samples/s  memory 1023.9 MiB")
        assert bar._tasks["training"][0] == 1, "the training's bar goes on, and its time left with it"
        bar.progress("training", 1, 700, "loss 0.7")
        assert bar._tasks["training"][0] != 1, "the next run's begins anew"
    [line] = shown
    assert len(line) <= width
    assert line.startswith("training ")
    assert " 50% loss 0.693  1250 samples/s  memory 1023.9 MiB " in line
    assert line.rstrip().endswith(("--:--", "00:00")) or line.rstrip()[-3] == ":"


def _lines(bar) -> list[str]:
    paper = StringIO()
    Console(file=paper, width=bar._progress.console.width).print(bar._progress.get_renderable())
    return [line for line in paper.getvalue().splitlines() if line.strip()]


def test_plain_lines_come_once_a_stage_and_then_seldom(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    lines = progress._Lines()
    for second in range(25):
        clock[0] = float(second)
        lines.progress("training", second, 100, "loss")
    lines.progress("testing", 1, None)
    assert capsys.readouterr().err.splitlines() == [
        "training 0%  loss",
        "training 10%  loss",
        "training 20%  loss",
        "testing",
    ]


def test_plain_lines_of_two_runs_at_once_come_seldom_too(monkeypatch, capsys):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 100.0)
    lines = progress._Lines()
    for done in range(20):
        lines.progress(("lora: training", "full: training")[done % 2], done, 100)
    assert capsys.readouterr().err.splitlines() == ["lora: training 0%", "full: training 1%"]


def test_plain_lines_tell_of_other_steps_than_before(capsys):
    """A round of pilots has fewer than the round before."""
    lines = progress._Lines()
    for count in (4, 2, 1):
        lines.standing([Step(f"round of {count}, {number}", "done") for number in range(count)], None)
    assert [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()] == (
        ["round of 4"] * 4 + ["round of 2"] * 2 + ["round of 1"]
    )


def test_documents_survive_a_terminal_without_unicode(monkeypatch):
    import io

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    print_json({"name": "данные"})
    stream.flush()
    assert json.loads(stream.buffer.getvalue()) == {"name": "данные"}


STEPS = [
    Step("full, seed 0", "kept", "accuracy 0.868", 0.1),
    Step("lora r=8 a=16 query+value, nf4: search", "done", "learning_rate 0.0023, the best of 5 trials", 200.0),
    Step("lora r=8 a=16 query+value, nf4, seed 0", "running", "training 40%  loss 0.312  171 samples/s", 61.0),
    Step("full, nf4, seed 0", "refused", "quantised weights have no gradients"),
    Step("ia3, seed 0", "failed", "the loss became nan: try a lower rate", 12.0),
    *(Step(f"top_layers top {number}, seed 0") for number in range(1, 30)),
]


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_shows_what_runs_what_is_next_and_what_ended(monkeypatch, width):
    console = Console(file=StringIO(), force_terminal=True, width=width, height=16, color_system=None)
    monkeypatch.setattr(progress, "err", console)
    with progress.reporting() as bar:
        bar.standing(STEPS, 1500.0)
        paper = StringIO()
        Console(file=paper, width=width, height=16).print(bar)
    lines = [line.rstrip() for line in paper.getvalue().splitlines() if line.strip()]
    assert lines[0] == "4 of 34 done, 1 running, 1 refused, 1 failed, about 25 min 00 s left"
    assert len(lines) <= 16
    assert max(map(len, lines)) <= width
    shown = "\n".join(lines)
    for word in ("running", "training 40%", "refused", "failed", "waiting", "top_layers top 1,"):
        assert word in shown
    assert "top_layers top 29" not in shown
    assert any(line.endswith("3 min 20 s") for line in lines)


def test_plain_lines_tell_each_step_once_as_it_ends(capsys):
    lines = progress._Lines()
    lines.standing(STEPS, None)
    lines.standing(STEPS, 1500.0)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(set(told)) == 4
    assert told[1] == (
        "lora r=8 a=16 query+value, nf4: search: done after 3 min 20 s, learning_rate 0.0023, the best of 5 trials"
        "  (4 of 34 done, 1 running, 1 refused, 1 failed)"
    )


def test_steps_of_one_name_are_told_apart(capsys):
    lines = progress._Lines()
    for _ in range(3):
        lines.standing([Step("lora, seed 0", "done", "accuracy 0.850"), Step("lora, seed 0")], None)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_is_true_of_many_rows_is_said_once():
    remarks = [("lora", "older"), ("full", "older"), ("full", "cut"), ("lora", "older")]
    assert gathered(remarks) == ["lora, full: older", "full: cut"]
