"""The command line: what is printed where, exit statuses, and one clear message for everything that goes wrong."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pewb import cli
from pewb.errors import InputError
from pewb.record import AssetRecord, Device, Metric, Parameters, Peak, Record, Time, write_record
from tests.test_recipe import ROOT

RECIPE = ROOT / "recipes" / "lora_sst2.toml"


@pytest.fixture
def pewb(monkeypatch, capsys, tmp_path):
    """Return a function that does a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["pewb", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code or 0
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err
        assert "Traceback" not in captured.err
        return SimpleNamespace(status=status, out=captured.out, err=captured.err, text=captured.out + captured.err)

    return command


def a_record(**fields) -> Record:
    metric = Metric(value=0.75, low=0.7, high=0.8)
    return Record.model_validate(
        {
            "run": "lora-tiny-seed0",
            "identity": "1" * 64,
            "status": "success",
            "started_at": "2025-01-01T00:00:00Z",
            "finished_at": "2025-01-01T00:01:00Z",
            "backbone": "tiny",
            "task": "movies",
            "strategy": "lora",
            "settings": "r=8",
            "quantization": "none",
            "seed": 0,
            "precision": "fp32",
            "device": Device(kind="cpu", name="CPU"),
            "recipe_given": {},
            "recipe_resolved": {},
            "assets": [AssetRecord(name="tiny", kind="backbone", source="folder", digests={"a": "b"})],
            "parameters": Parameters(trainable=100, head=20, total=1000),
            "memory": {"train": Peak(peak_allocated_bytes=2**20, peak_resident_bytes=2**30)},
            "time": Time(train_seconds=61.0, samples_per_second=250.5, total_seconds=80.0),
            "shipped_bytes": 3000,
            "main_metric": "accuracy",
            "metrics": {"accuracy": metric},
            "baseline": {"accuracy": metric},
            "model": "models/lora-tiny-seed0",
        }
        | fields
    )


@pytest.fixture
def runs(monkeypatch):
    """Return a function that makes `pewb run` bring these records, or raise this."""

    def bring(*outcomes):
        def run(loaded, results, reporter, *, num_jobs, rerun):
            reporter.notice("a line on the way")
            reporter.progress("training", 1, 2, "loss 0.5")
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            return [(record, write_record(record, results)) for record in outcomes]

        monkeypatch.setattr("pewb.runner.run", run)

    return bring


def test_run_prints_one_document_and_redraws_the_leaderboard(pewb, runs, tmp_path):
    runs(a_record())
    done = pewb("run", RECIPE, "--json")
    assert done.status == 0
    [run] = json.loads(done.out)["runs"]
    assert run["record"] == "results/lora-tiny-seed0.json"
    assert done.err == "a line on the way\ntraining 50%  loss 0.5\n"
    assert "lora" in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("status", ["failed", "out_of_memory", "cancelled"])
def test_a_run_without_success_is_status_1_and_its_reason_is_shown(pewb, runs, status):
    runs(
        a_record(),
        a_record(
            run="other", status=status, reason="it broke\nwith [/much] detail", traceback="Traceback (most recent"
        ),
    )
    done = pewb("run", RECIPE)
    assert done.status == 1
    assert f"seed 0: {status}" in done.out
    assert "it broke" in done.out
    assert "much" not in done.out
    assert "results/other.json" in done.out


def test_text_with_brackets_is_shown_as_it_is(pewb, runs):
    runs(a_record(task="[/reviews]", reason=None, warnings=["only class '[b]'"], notices=[":smile: [/x]"]))
    done = pewb("run", RECIPE, "--results", "res[a]")
    assert done.status == 0
    for text in ("[/reviews]", "'[b]'", ":smile: [/x]", "res[a]/lora-tiny-seed0.json", "records in res[a]/"):
        assert text in done.out
    shown = pewb("leaderboard", "--results", "res[a]")
    assert "[/reviews]" in shown.out


def test_a_record_that_cannot_be_read_does_not_hide_a_finished_run(pewb, runs, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "broken.json").write_text("{")
    runs(a_record())
    done = pewb("run", RECIPE, "--json")
    assert done.status == 0
    assert json.loads(done.out)["runs"]
    assert "the leaderboard is not redrawn: results/broken.json is not a record" in done.err
    board = pewb("leaderboard")
    assert board.status == 2
    assert "broken.json is not a record" in board.err


def test_an_error_of_the_input_is_told_alone(pewb, runs, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "broken.json").write_text("{")
    runs(InputError("the [/input] is wrong"))
    done = pewb("run", RECIPE, "--json")
    assert done.status == 2
    assert done.out == ""
    assert done.err.splitlines()[-1] == "error the [/input] is wrong"
    assert not (tmp_path / "leaderboard.md").exists()


def test_an_interrupt_is_130_and_the_leaderboard_is_true(pewb, runs, tmp_path):
    write_record(a_record(status="cancelled"), tmp_path / "results")
    runs(KeyboardInterrupt())
    done = pewb("run", RECIPE)
    assert done.status == 130
    assert done.out == ""
    assert "interrupted; what was done is recorded" in done.err
    assert "cancelled" in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")


def test_an_interrupt_before_anything_was_done_leaves_nothing(pewb, runs, tmp_path):
    runs(KeyboardInterrupt())
    assert pewb("run", RECIPE).status == 130
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_system_is_one_message(pewb, runs):
    runs(OSError(28, "No space left on device", "results"))
    done = pewb("run", RECIPE)
    assert done.status == 1
    assert "No space left on device: 'results'" in done.err


def test_results_elsewhere_have_their_leaderboard_beside_them(pewb, runs, tmp_path):
    runs(a_record())
    done = pewb("run", RECIPE, "--results", "deep/results", "--json")
    assert json.loads(done.out)["runs"][0]["record"] == "deep/results/lora-tiny-seed0.json"
    assert (tmp_path / "deep" / "leaderboard.md").is_file()
    board = pewb("leaderboard", "--results", "deep/results", "--output", "page.md", "--json")
    [row] = json.loads(board.out)["rows"]
    assert (row["seeds"], row["runs"]) == ([0], ["lora-tiny-seed0"])
    assert (tmp_path / "page.md").read_bytes() == (tmp_path / "deep" / "leaderboard.md").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], ["Missing argument 'RECIPE'"]),
        (["rum", "x"], ["No such command 'rum'"]),
        (["run", "lora_sst.toml"], ["lora_sst.toml: no such recipe"]),
        (["run", ROOT / "recipes" / "lora_sst.toml"], ["no such recipe", "did you mean", "lora_sst2.toml"]),
        (["run", RECIPE, "--set", "trainig.epochs=1"], ["trainig: unknown key", "did you mean 'training'"]),
        (["run", RECIPE, "--set", "training.epoch=1"], ["training.epoch: unknown key", "did you mean 'epochs'"]),
        (["run", RECIPE, "--set", "training.epochs"], ["--set training.epochs: write section.key=value"]),
        (["run", RECIPE, "--set", "task=sst3"], ["no task 'sst3'", "did you mean 'sst2'"]),
        (["check", RECIPE, "--set", "strategy=full", "--set", "quantization=nf4"], ["nf4", "does not go with", "full"]),
        (["run", "."], [".: no such recipe", "can't be read"]),
        (["list", "strategie"], ["did you mean 'strategies'"]),
        (["list", "tasks", "--matrix"], ["--matrix is of strategies, not of tasks"]),
        (["leaderboard"], ["--results results: no such folder", "pewb run"]),
        (["fetch", "minilm-l7"], ["no backbone 'minilm-l7'", "did you mean 'minilm-l6'"]),
    ],
)
def test_what_the_user_got_wrong_is_status_2_with_the_way_out(pewb, arguments, words, tmp_path):
    done = pewb(*arguments)
    assert done.status == 2
    assert done.out == ""
    found = [word for word in words if word in done.err]
    assert found == words or (arguments == ["run", "."] and found), done.err
    assert list(tmp_path.iterdir()) == []


def test_lists_and_checks_speak_json(pewb):
    listed = {
        what: json.loads(pewb("list", what, "--json").out)[what]
        for what in ("strategies", "tasks", "backbones", "gpus", "keys")
    }
    assert {"full", "lora"} <= {row["name"] for row in listed["strategies"]}
    assert {"sst2", "movie-snippets"} <= {row["name"] for row in listed["tasks"]}
    assert {"minilm-l6"} <= {row["name"] for row in listed["backbones"]}
    assert {"training.epochs", "tune.trials"} <= {row["name"] for row in listed["keys"]}
    checked = json.loads(pewb("check", RECIPE, "--json", "--set", "training.epochs=7").out)
    assert checked["recipes"][0]["training"]["epochs"] == 7


def test_list_tells_what_a_strategy_can_be_combined_with(pewb):
    rows = {row["name"]: row for row in json.loads(pewb("list", "strategies", "--json").out)["strategies"]}
    assert all(row["equation"] and row["paper"] and row["learning_rate_source"] for row in rows.values())
    assert rows["bottleneck_adapter"]["variants"] == ["houlsby", "pfeiffer", "parallel"]
    assert "LoRA+" in rows["lora"]["goes_with"][0]
    assert not rows["full"]["goes_with"]
    assert rows["full"]["refuses"] == [
        "int8, nf4, fp4: quantised weights have no gradients, so they can't all be trained"
    ]
    assert rows["bitfit"]["refuses"] == ["architectures without biases, such as Llama and T5"]
    assert not rows["prefix_tuning"]["gradient_checkpointing"]
    shown = pewb("list", "strategies").out
    assert "h = W x + b, only b trained" in shown
    assert "such as Llama and T5" in " ".join(shown.split())


def test_the_matrix_counts_its_refusals(pewb):
    document = json.loads(pewb("list", "strategies", "--matrix", "--json").out)
    cells = document["matrix"]
    refused = [cell for cell in cells if cell["refusal"]]
    assert (document["combinations"], document["refused"]) == (len(cells), len(refused))
    assert {"method", "settings", "architecture", "quantization"} < cells[0].keys()
    shown = pewb("list", "strategies", "--matrix").out
    working = len(cells) - len(refused)
    assert (
        f"{len(cells)} combinations on this device ({document['device']}): {working} work, {len(refused)} are" in shown
    )
    for number, reason in enumerate(dict.fromkeys(cell["refusal"] for cell in refused), 1):
        assert f"  ({number}) {reason}" in shown


def test_help_teaches_an_example(pewb):
    for arguments in ([], ["--help"], ["run", "--help"]):
        assert "pewb run recipes/lora_sst2.toml" in pewb(*arguments).text


def test_commands_that_do_not_train_do_not_import_torch():
    script = (
        "import sys; from pewb import cli; sys.argv = ['pewb', 'check', sys.argv[1]]\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(RECIPE)], capture_output=True).returncode == 0


def test_the_recipe_of_the_readme_is_right(pewb):
    assert Path(RECIPE).is_file()
    assert "is right" in pewb("check", RECIPE).out


def test_the_evidence_is_shown_from_anywhere_and_nothing_is_written(pewb, tmp_path):
    done = pewb("leaderboard", "--evidence")
    assert done.status == 0
    assert "minilm-l6 · movie-snippets" in done.out
    assert list(tmp_path.iterdir()) == []
    shown = pewb("leaderboard", "--evidence", "--task", "sst2", "--task", "tweets-rating").out
    assert "minilm-l6 · tweets-rating" in shown and "movie-snippets" not in shown
    wrong = pewb("leaderboard", "--evidence", "--task", "sst2")
    assert (wrong.status, "there is no table of it; there are some of: friends-dialogue" in wrong.err) == (2, True)


@pytest.fixture
def fitting(monkeypatch):
    """Let every row fit without a simulation."""
    from pewb import choosing
    from tests.choosing.conftest import NEEDS, needs_like

    monkeypatch.setattr(choosing, "needs_of", needs_like(NEEDS))


BASICS = ROOT / "recipes" / "compare_basics_sst2.toml"


def test_choose_says_what_and_why(pewb, fitting):
    done = pewb("choose", BASICS, "--gpu-memory", "8GiB")
    assert done.status == 0
    assert "take top_layers with micro-batch 32: 0.852" in " ".join(done.out.split())
    document = json.loads(pewb("choose", BASICS, "--gpu-memory", "8GiB", "--json").out)
    assert document["choice"]["name"] == "top_layers"
    assert document["ladder"] is None


def test_choose_shows_the_ladder(pewb, fitting):
    done = pewb("choose", BASICS)
    assert "4 GiB to 80 GiB" in done.out, "equal neighbours are one line"
    document = json.loads(pewb("choose", BASICS, "--gpu-memory", "4GiB", "--gpu-memory", "8GiB", "--json").out)
    assert [step["memory_bytes"] for step in document["ladder"]] == [4 * 2**30, 8 * 2**30]


def test_choose_writes_a_recipe(pewb, fitting, tmp_path):
    assert pewb("choose", BASICS, "--gpu", "t4", "--write", "chosen.toml").status == 0
    assert pewb("check", "chosen.toml").status == 0
    again = pewb("choose", BASICS, "--gpu", "t4", "--write", "chosen.toml")
    assert (again.status, "already there" in again.err) == (2, True)
    none = pewb("choose", BASICS, "--gpu", "t4", "--max-trainable", "1", "--write", "none.toml")
    assert (none.status, "nothing is written" in none.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gpu", "rtx-4091"], "did you mean"),
        (["--gpu-memory", "much"], "is not a size"),
        (["--gpu", "t4", "--gpu-memory", "8GiB"], "one of the two"),
        (["--gpu-memory", "8GiB", "--max-trainable", "few"], "is not a count"),
        (["--gpu-memory", "8GiB", "--max-train-time", "long"], "is not a duration"),
        (["--gpu-memory", "8GiB", "--results", "nowhere"], "no such folder"),
        (["--gpu-memory", "8GiB", "--evidence", "nowhere.json"], "can't be read"),
        (["--gpu-memory", "8GiB", "--only", "lara"], "did you mean"),
    ],
)
def test_choose_with_bad_input(pewb, fitting, arguments, words):
    done = pewb("choose", BASICS, *arguments)
    assert (done.status, done.out) == (2, "")
    assert words in done.err


def test_the_evidence_is_compared_from_anywhere(pewb):
    one, other = "full: lr 0.00011 tuned, 3", "prompt_tuning"
    done = pewb("compare", one, other, "--evidence")
    assert done.status == 0, done.text
    assert "full is better than prompt_tuning" in done.out
    missing = pewb("compare", one, other)
    assert (missing.status, "--evidence" in missing.err) == (2, True)


def test_evidence_goes_out_and_comes_in(pewb):
    done = pewb("evidence", "export", "--results", ROOT / "results", "--to", "peft")
    assert done.status == 0
    assert "left out: majority_class" in done.out
    shown = pewb("evidence", "import", "peft")
    assert shown.status == 0
    assert "on minilm-l6, movie-snippets" in shown.out
    assert len(json.loads(pewb("evidence", "import", "peft", "--json").out)["evidence"]) == len(
        list(Path("peft").iterdir())
    )
    Path("bad.json").write_text("{}")
    bad = pewb("evidence", "import", "bad.json")
    assert (bad.status, bad.out) == (2, "")
    assert "not of PEFT's result schema" in bad.err


def test_libraries_make_no_remarks_when_they_are_imported():
    """As PEFT's imports bitsandbytes, which looks for kernels that it does without."""
    command = [sys.executable, "-m", "pewb", "check", ROOT / "recipes" / "peft_sst2.toml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
