"""The README's commands are real ones, its sessions what they print, and its table of strategies is the code's.

`python -m tests.test_readme` writes the sessions anew, as `make sums` does.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pewb.recipe import load_recipe
from pewb.strategies import strategies
from tests.test_recipe import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("pewb ")
]


SESSIONS = re.findall(r"```console\n\$ (pewb .*)\n([^`]*)```", README)
WIDTH = 88


def printed(command: str) -> list[str]:
    """Return the lines that a command prints in a terminal of `WIDTH` columns."""
    words = [sys.executable, "-m", "pewb", *shlex.split(command)[1:]]
    environment = os.environ | {"COLUMNS": str(WIDTH), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return [line.rstrip() for line in done.stdout.rstrip().splitlines()]


@pytest.mark.parametrize(("command", "shown"), SESSIONS, ids=[command for command, _ in SESSIONS])
def test_sessions_are_what_is_printed(command, shown):
    """Up to a line of dots, after which the README leaves out the rest."""
    expected, found = shown.splitlines(), printed(command)
    if expected[-1] == "…":
        expected, found = expected[:-1], found[: len(expected) - 1]
    assert found == expected


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_of_the_readme(command, capsys, monkeypatch, tmp_path):
    """Cheap commands run; of `run`, the recipe and its overrides are read; `choose` runs with a stand-in simulation."""
    from typer.testing import CliRunner

    from pewb import choosing, doctor
    from pewb.cli import app
    from tests.choosing.conftest import NEEDS, needs_like

    monkeypatch.chdir(ROOT)
    _, verb, *arguments = command
    if verb == "run":
        overrides, only = (
            [arguments[place + 1] for place, word in enumerate(arguments) if word == option]
            for option in ("--set", "--only")
        )
        assert load_recipe(arguments[0], overrides, only).cells
    elif verb == "data":
        assert load_recipe(arguments[0]).cells
    elif verb in ("list", "check", "compare", "plan"):
        result = CliRunner().invoke(app, [verb, *arguments])
        assert result.exit_code == 0, result.output
    elif verb in ("choose", "evidence"):  # which write into the current folder
        monkeypatch.setattr(choosing, "needs_of", needs_like(NEEDS))
        monkeypatch.chdir(tmp_path)
        for name in ("recipes", "results"):
            (tmp_path / name).symlink_to(ROOT / name)
        if arguments[0] == "import":
            CliRunner().invoke(app, ["evidence", "export", "--to", arguments[1]])
        result = CliRunner().invoke(app, [verb, *arguments])
        assert result.exit_code == 0, result.output
    elif verb == "doctor":
        monkeypatch.setattr(doctor, "measure", lambda _: doctor.Measurements({"name": "a GPU"}, {}, []))
        result = CliRunner().invoke(app, [verb, *arguments])
        assert result.exit_code == 0, result.output
    elif verb == "leaderboard":
        words = zip(["", *arguments], arguments, strict=False)
        arguments = [str(tmp_path / "plots") if before == "--plots" else word for before, word in words]
        result = CliRunner().invoke(app, [verb, *arguments, "--output", str(tmp_path / "leaderboard.md")])
        assert result.exit_code == 0, result.output
        assert (tmp_path / "leaderboard.md").read_text() == (ROOT / "leaderboard.md").read_text()
        assert ("--plots" in arguments) == any((tmp_path / "plots").glob("*.svg"))
    else:
        assert verb == "fetch"


def test_the_recipe_of_a_comparison_is_one(tmp_path):
    [text] = [block for block in re.findall(r"```toml\n(.*?)```", README, re.DOTALL) if "[[compare]]" in block]
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    assert len(load_recipe(tmp_path / "recipe.toml").cells) == 4


def test_the_table_of_strategies_is_the_codes():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*\| [\d.e-]+) \|$", README, re.MULTILINE))
    expected = {name: f"{kind.trains} | {kind.default_learning_rate:g}" for name, kind in strategies().items()}
    assert {name: rows.get(name) for name in expected} == expected


def test_the_tree_names_real_files():
    tree = README[README.index("```\npewb/") :]
    for name in re.findall(r"^  (\w+\.py|\w+/)", tree, re.MULTILINE):
        assert (Path(ROOT) / "pewb" / name).exists(), name


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_are_targets_of_make(target):
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def write_sessions() -> None:
    """Bring the README's sessions up to date, each as long as it is."""
    text = README
    for command, shown in SESSIONS:
        lines = printed(command)
        if shown.endswith("…\n"):
            lines = [*lines[: shown.count("\n") - 1], "…"]
        text = text.replace(f"$ {command}\n{shown}", f"$ {command}\n" + "".join(f"{line}\n" for line in lines))
    (ROOT / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_sessions()
