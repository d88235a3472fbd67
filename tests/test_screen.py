"""The screen: bars that fit, plain lines in pipes, documents that survive."""

import json
import sys
from io import StringIO

import pytest
from rich.console import Console

from pewb import screen


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_fits_the_terminal_with_everything_in_it(monkeypatch, width):
    shown_on = StringIO()
    console = Console(file=shown_on, force_terminal=True, width=width, color_system=None, legacy_windows=False)
    monkeypatch.setattr(screen, "err", console)
    with screen.reporting() as bar:
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
    monkeypatch.setattr(screen.time, "monotonic", lambda: clock[0])
    lines = screen._Lines()
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


def test_documents_survive_a_terminal_without_unicode(monkeypatch):
    import io

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    screen.print_json({"name": "данные"})
    stream.flush()
    assert json.loads(stream.buffer.getvalue()) == {"name": "данные"}
