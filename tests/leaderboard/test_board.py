import json
import random
import re
import subprocess
import sys

import pytest

from pewb import screen
from pewb.errors import InputError
from pewb.leaderboard import Leaderboard
from pewb.record import NUMERICS_VERSION, Trial, Tuning, write_record


def _cells(line):
    return [cell.strip() for cell in line.replace(r"\|", "\0").strip("|\n").split("|")]


def _table(markdown):
    return [_cells(line) for line in markdown.splitlines() if line.startswith("|")]


def test_the_same_records_give_the_same_bytes_in_any_order(make_record, make_early_failure):
    records = [
        *(
            make_record(strategy=name, seed=seed, accuracy=0.8 + seed / 50)
            for name in ("lora", "full")
            for seed in (0, 1)
        ),
        make_record(device_kind="cuda"),
        make_record(status="failed", reason="boom", strategy="mam"),
        make_early_failure(strategy="ia3"),
    ]
    page = Leaderboard(records).to_markdown()
    for _ in range(5):
        random.shuffle(records)
        assert Leaderboard(records).to_markdown() == page
    assert "2025" not in page
    assert page.startswith("# Leaderboard\n")
    assert "drawn from the records in `results/` by `pewb leaderboard`" in page.lower()


def test_no_record_tells_how_to_get_one(tmp_path):
    board = Leaderboard.from_results(tmp_path / "missing")
    assert "pewb run recipes/lora_sst2.toml" in board.to_markdown()
    assert board.rows == []
    assert board.to_json() == {"rows": [], "groups": []}


def test_the_best_comes_first_and_failures_last(make_record):
    board = Leaderboard(
        [
            make_record(strategy="full", status="out_of_memory"),
            make_record(strategy="lora", accuracy=0.7),
            make_record(strategy="bitfit", accuracy=0.9),
        ]
    )
    assert [row.strategy for row in board.rows] == ["bitfit", "lora", "full"]


def test_other_test_sets_and_devices_are_other_groups_in_order_of_names(make_record):
    board = Leaderboard(
        [make_record(backbone="z"), make_record(device_kind="cuda"), make_record(test_digest="f" * 64), make_record()]
    )
    assert len(board.groups) == 4
    assert [group.title.split(" · ")[0] for group in board.groups] == ["minilm-l6"] * 3 + ["z"]
    for group in board.groups:
        assert len({row.test_digest for row in group.rows}) == 1


def test_a_groups_header_says_what_is_compared(make_record):
    (group,) = Leaderboard([make_record(strategy="full", baseline=0.48), make_record(baseline=0.512)]).groups
    text = group.to_markdown()
    assert "## minilm-l6 · movies (1,061 test examples) · cpu\n" in text
    assert "Device: EPYC." in text
    assert re.search(r"\*untouched model\*.*0\.496 \[", text)
    assert "The most frequent class has this share of the test labels: 0.505." in text
    assert "test set eeeeeeeeeeee" in text


def test_the_table_of_a_cpu_run(make_record):
    header, ruler, line, _ = _table(Leaderboard([make_record()]).to_markdown())
    assert dict(zip(header, line, strict=True)) == {
        "strategy": "lora: lr 1e-3",
        "quantization": "none",
        "precision": "fp32",
        "trainable": "74,114",
        "share": "0.325 %",
        "peak live tensors": "300.0 MiB",
        "peak resident": "900.0 MiB",
        "train time": "1 min 01 s",
        "samples/s": "250",
        "accuracy": "0.800 [0.780, 0.818]",
        "Pareto": "yes",
        "size on disk": "293.0 KiB",
        "seeds": "0",
        "status": "success",
    }
    assert all(set(cell) <= {"-", ":"} and len(cell) >= 3 for cell in ruler)


def test_a_gpus_memory_is_what_was_reserved(make_record):
    header, _, line, _ = _table(Leaderboard([make_record(device_kind="cuda")]).to_markdown())
    assert dict(zip(header, line, strict=True))["peak reserved"] == "2.00 GiB"
    assert "peak resident" not in header


def test_the_table_is_aligned(make_record):
    board = Leaderboard([make_record(), make_record(strategy="bottleneck_adapter", status="failed", reason="why")])
    lines = [line.replace(r"\|", "..") for line in board.to_markdown().splitlines() if line.startswith("|")]
    places = [[place for place, sign in enumerate(line) if sign == "|"][:-1] for line in lines]
    assert all(one == places[0] for one in places)


def test_marks_of_markdown_in_text_are_shown_as_they_are(make_record):
    board = Leaderboard(
        [make_record(settings="a|b\nc", backbone="x|y"), make_record(strategy="full", status="failed", reason="<b>|\\")]
    )
    text = board.to_markdown()
    assert r"lora: a\|b c" in text
    assert r"failed: \<b>\|\\" in text
    assert r"## x\|y" in text
    for group in board.groups:
        assert len({len(line) for line in _table(group.to_markdown())}) == 1


def test_status_tells_of_failed_seeds_repeats_flags_and_older_numerics(make_record):
    records = [
        make_record(seed=0, warnings=["predicts one class only"]),
        make_record(seed=1, warnings=["predicts one class only"]),
        make_record(seed=2, status="out_of_memory", reason="needs more"),
        make_record(seed=0, warnings=["predicts one class only"]),
        make_record(strategy="full", accuracy=0.7, numerics_version=NUMERICS_VERSION - 1),
        make_record(strategy="mam", status="failed", reason="x" * 500),
        make_record(strategy="ia3", seed=0, status="failed", reason="why"),
        make_record(strategy="ia3", seed=1, status="failed", reason="why"),
    ]
    rows = {line[0].split(":")[0]: line for line in _table(Leaderboard(records).to_markdown())[2:]}
    assert rows["lora"][-2:] == ["0, 1, 2 (4 runs)", "2 of 3 seeds; 1 out_of_memory; predicts one class only"]
    assert rows["full"][-1] == "success; older numerics"
    assert rows["ia3"][-1] == "0 of 2 seeds; 2 failed: why"
    assert rows["mam"][-1].endswith("x…")
    assert len(rows["mam"][-1]) < 120


def test_a_warning_that_every_row_shares_is_told_once(make_record):
    records = [make_record(strategy=name, warnings=["the same text twice"]) for name in ("lora", "full")]
    (group,) = Leaderboard([*records, make_record(strategy="mam", status="failed")]).groups
    assert group.to_markdown().count("the same text twice") == 1
    assert "Every run here: the same text twice." in group.facts


def test_a_group_as_a_table_for_a_terminal(make_record, make_early_failure):
    (group,) = Leaderboard([make_record(quantization="nf4"), make_early_failure(strategy="full")]).groups
    columns, lines = group.to_table()
    assert columns == ["strategy", "share", "live tensors", "train time", "accuracy", "marks", "status"]
    assert lines[0] == ["lora nf4", "0.325 %", "300.0 MiB", "1 min 01 s", "0.800 [0.780, 0.818]", "best ◆", "success"]
    assert lines[-1][-1] == "refused: can't be"
    assert group.to_table(narrow=True)[1][0][4] == "0.800 ±0.020"
    (group,) = Leaderboard([make_record(seed=0), make_record(seed=1)]).groups
    columns, lines = group.to_table()
    assert dict(zip(columns, lines[0], strict=True))["seeds"] == "2"


def test_json_holds_the_rows(make_record):
    board = Leaderboard([make_record(), make_record(seed=1)])
    content = json.loads(json.dumps(board.to_json()))
    assert content["rows"][0]["metrics"]["accuracy"]["value"] == pytest.approx(0.8)
    assert content["rows"][0]["memory"]["train"]["peak_allocated_bytes"] == 300 * 2**20


def test_from_results_to_a_page_on_disk(make_record, tmp_path):
    records = [make_record(), make_record(seed=1)]
    for record in records:
        write_record(record, tmp_path / "results")
    board = Leaderboard.from_results(tmp_path / "results")
    page = board.write(tmp_path / "new" / "leaderboard.md")
    assert page.read_bytes() == Leaderboard(records).to_markdown().encode()
    assert [path.name for path in page.parent.iterdir()] == ["leaderboard.md"]
    assert all((tmp_path / "results" / name).is_file() for row in board.rows for name in row.records)
    board.write(page)


def test_a_damaged_record_is_told_of(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match=r"broken\.json"):
        Leaderboard.from_results(tmp_path)


def test_drawing_needs_no_heavy_library(make_record, tmp_path):
    write_record(make_record(seed=0), tmp_path)
    write_record(make_record(seed=1), tmp_path)
    code = (
        "import sys; from pewb.leaderboard import Leaderboard; heavy = {'torch', 'pandas', 'transformers', 'scipy'};"
        "assert not heavy & set(sys.modules); Leaderboard.from_results(sys.argv[1]).to_markdown();"
        "assert not (heavy - {'scipy'}) & set(sys.modules); assert 'scipy.stats' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_a_narrow_terminal_keeps_names_and_numbers_whole(make_record, monkeypatch, capsys):
    monkeypatch.setattr(screen.out, "width", 80)
    strategies = ("bottleneck_adapter", "tf_idf_logistic_regression")
    screen.print_leaderboard(Leaderboard([make_record(strategy=name, quantization="int8") for name in strategies]))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("bottleneck_adapter int8 ") and "0.800 ±0.020" in line for line in lines)
    assert any(line.startswith("tf_idf_logistic_ ") for line in lines)
    assert max(map(len, lines)) <= 80


def test_rows_of_one_strategy_are_named_by_what_is_their_own(make_record):
    def row(settings, tuned=False, **fields):
        tuning = Tuning(study="s", seed=0, trials=[Trial(values={}, state="complete")], chosen={}) if tuned else None
        return make_record(
            settings=f"{settings}, lr 0.001{' tuned' if tuned else ''}, 3 epochs", tuning=tuning, **fields
        )

    records = [
        row("dora r=8 a=16", accuracy=0.9),
        row("r=8 a=16", tuned=True, accuracy=0.8),
        row("rslora r=8 a=16", tuned=True, accuracy=0.7),
        row("r=8 a=16", accuracy=0.6),
        make_record(strategy="peft", settings="X, lr 1", accuracy=0.5, recipe={"targets": ["query", "value"]}),
        make_record(strategy="peft", settings="X, lr 1", accuracy=0.4, recipe={"targets": ["key", "value"]}),
        row("r=8 a=16", accuracy=0.3, numerics_version=1),
    ]
    [group] = Leaderboard(records).groups
    names = [name for name in group.names if "untouched" not in name]
    assert names[-1] == "lora older numerics"
    assert names[:4] == ["lora dora", "lora tuned", "lora rslora", "lora"]
    assert names[4:-1] == ['peft targets=["query", "value"]', 'peft targets=["key", "value"]']


def test_peft_is_named_with_its_method(make_record):
    [group] = Leaderboard([make_record(), make_record(strategy="peft", settings="FOURIERFT, lr 1")]).groups
    assert sorted(name for name in group.names if "untouched" not in name) == ["lora", "peft FOURIERFT"]
