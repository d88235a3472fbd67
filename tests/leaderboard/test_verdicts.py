"""What follows from a table: who can't be told apart from the best, who is Pareto-optimal, what fits a budget."""

import csv
import json

import numpy as np
import pytest

from pewb.evaluation.parts import Parts, mean
from pewb.leaderboard import Leaderboard
from pewb.leaderboard.outcomes import Outcome, Untested, read_outcomes
from pewb.record import Memory, Metric, Parameters, Peak, Time, Trial, Tuning, write_record

NUM = 400


def _outcome(num_right, examples="x", shift=0):
    return Outcome(examples, Parts(np.roll(np.arange(NUM) < num_right, shift)[:, None], mean))


def _priced(make_record, name, accuracy, mib=100, seconds=10, trainable=1000, **fields):
    return make_record(
        strategy=name,
        accuracy=accuracy,
        memory=Memory(train=Peak(peak_allocated_bytes=mib * 2**20)),
        time=Time(train_seconds=seconds),
        parameters=Parameters(trainable=trainable, head=10, total=10_000),
        **fields,
    )


def _reference(make_record, name="tf_idf_logistic_regression", accuracy=0.7):
    record = make_record(strategy=name, backbone="none", is_reference=True, accuracy=accuracy, settings="")
    nothing = {
        "parameters": None,
        "memory": Memory(),
        "time": Time(),
        "baseline": {},
        "device": None,
        "precision": None,
    }
    return record.model_copy(update=nothing | {"shipped_bytes": None})


@pytest.fixture
def board(make_record):
    records = [
        _priced(make_record, "full", 0.90, mib=600, seconds=60, trainable=9000),
        _priced(make_record, "lora", 0.89, mib=300, seconds=30, trainable=300),
        _priced(make_record, "dora", 0.89, mib=400, seconds=50, trainable=310),
        _priced(make_record, "head_only", 0.60, mib=100, seconds=10, trainable=100),
        _reference(make_record),
    ]
    rights = (360, 356, 356, 240, 280)
    outcomes = {record.run: _outcome(right) for record, right in zip(records, rights, strict=True)}
    return Leaderboard(records, outcomes)


def test_rows_are_marked_against_the_best(board):
    [group] = board.groups
    places = {row.strategy: standing.place for row, standing in zip(group.rows, group.standings, strict=True)}
    assert places == {
        "full": "best",
        "lora": "alike",
        "dora": "alike",
        "tf_idf_logistic_regression": "behind",
        "head_only": "behind",
        "untouched model": "not tested",
    }
    told = dict(group.conclusions)
    assert told["Not told apart from the best"] == (
        "dora and lora can't be told apart from full, the best. The cheapest of these:"
        " lora (at worst −0.022) in memory (300.0 MiB), train time (30 s) and trainable parameters (300)."
    )


def test_a_dominated_row_is_not_pareto_optimal_and_no_reference_is(board):
    [group] = board.groups
    optimal = {row.strategy for row, is_optimal in zip(group.rows, group.pareto, strict=True) if is_optimal}
    assert optimal == {"full", "lora", "head_only"}


def test_budgets_begin_at_the_reference_that_needs_none(board):
    told = dict(board.groups[0].conclusions)
    assert told["Best for a budget of memory"] == (
        "without a backbone: tf_idf_logistic_regression 0.700; from 300.0 MiB: lora 0.890; from 600.0 MiB: full 0.900."
    )


def test_references_stand_in_every_group_of_their_task_but_are_one_row(make_record):
    reference = _reference(make_record)
    board = Leaderboard([make_record(), make_record(backbone="other"), make_record(device_kind="cuda"), reference])
    assert len(board.groups) == 3
    for group in board.groups:
        assert [row.strategy for row in group.rows].count(reference.strategy) == 1
        assert "*tf_idf_logistic_regression*" in group.to_markdown()
        assert group.title.split(" · ")[0] != "none"
    assert [row.kind for row in board.rows].count("reference") == 1
    [alone] = Leaderboard([reference]).groups
    assert alone.title.endswith("references alone")


def test_a_reference_may_be_the_best_but_never_the_cheapest_strategy(make_record):
    records = [_priced(make_record, "lora", 0.70), _reference(make_record, accuracy=0.71)]
    outcomes = {records[0].run: _outcome(280), records[1].run: _outcome(284)}
    [group] = Leaderboard(records, outcomes).groups
    told = dict(group.conclusions)
    assert told["Not told apart from the best"].startswith(
        "lora can't be told apart from tf_idf_logistic_regression, the best. The cheapest of"
    )
    assert "lora (at worst −0.022) in memory" in told["Not told apart from the best"]
    assert not any(head.startswith("Best for") for head in told)


def test_a_row_that_did_worse_than_one_that_is_behind_is_not_named_cheapest(make_record):
    """Its seeds differ so much that it can't be told apart from anything."""
    seeds = {"full": (0.90, 0.9025), "lora": (0.88, 0.8825), "ia3": (0.80, 0.8025), "prompt": (0.60, 0.88)}
    records, outcomes = [], {}
    for mib, (name, values) in zip((600, 300, 200, 100), seeds.items(), strict=True):
        for seed, value in enumerate(values):
            records.append(_priced(make_record, name, value, mib=mib, seed=seed))
            outcomes[records[-1].run] = _outcome(round(value * NUM))
    [group] = Leaderboard(records, outcomes).groups
    places = {
        row.strategy: standing.place for row, standing in zip(group.rows, group.standings, strict=True) if standing
    }
    assert places == {
        "full": "best",
        "lora": "behind",
        "ia3": "behind",
        "prompt": "alike",
        "untouched model": "not tested",
    }
    assert dict(group.conclusions)["Not told apart from the best"] == (
        "prompt can't be told apart from full, the best. prompt did worse than lora, which can."
    )


def test_rows_of_older_numerics_are_not_held_against_todays(make_record):
    records = [
        _priced(make_record, "full", 0.95, numerics_version=1),
        _priced(make_record, "lora", 0.90),
        _priced(make_record, "ia3", 0.70),
    ]
    outcomes = {record.run: _outcome(count) for record, count in zip(records, (380, 360, 280), strict=True)}
    [group] = Leaderboard(records, outcomes).groups
    places = {
        row.strategy: standing.place for row, standing in zip(group.rows, group.standings, strict=True) if standing
    }
    assert places["full"] == "not tested"
    assert (places["lora"], places["ia3"]) == ("best", "behind")
    assert dict(group.conclusions)["Not tested against the best"] == "full (older numerics)."
    assert [is_optimal for row, is_optimal in zip(group.rows, group.pareto, strict=True) if row.strategy == "full"] == [
        False
    ]
    [alone] = Leaderboard([records[0], _priced(make_record, "ia3", 0.70, numerics_version=1)], outcomes).groups
    assert alone.standings[0].place == "best"


def test_losses_over_other_tokens_stand_in_tables_of_their_own(make_record):
    def of_loss(name, loss):
        return _priced(
            make_record, name, 0.5, main_metric="loss", metrics={"loss": Metric(value=loss, low=loss, high=loss)}
        )

    records = [of_loss("lora", 3.1), of_loss("full", 3.0), of_loss("ia3", 2.9), of_loss("mam", 3.2)]
    outcomes = {
        record.run: _outcome(200, tokens) for record, tokens in zip(records, ("128", "128", "32"), strict=False)
    } | {records[3].run: Untested("gone")}
    groups = Leaderboard(records, outcomes).groups
    tables = [[row.strategy for row in group.rows if row.runs] for group in groups]
    assert sorted(group.title.rpartition(" ")[2] for group in groups) == ["128", "32"], "what they are over is said"
    assert len({group.conditions_but_size for group in groups}) == 2
    assert sorted(tables) == [["full", "lora", "mam"], ["ia3"]]


def test_times_of_a_faster_machine_are_not_held_against_the_others(make_record):
    speeds = {"full": 440e9, "lora": 460e9, "ia3": 900e9}
    records = [
        _priced(make_record, name, value, seconds=100).model_copy(
            update={"time": Time(train_seconds=seconds, matmul_peak_flops_per_second=speeds[name])}
        )
        for name, value, seconds in (("full", 0.9, 200), ("lora", 0.89, 150), ("ia3", 0.89, 100))
    ]
    outcomes = {record.run: _outcome(356) for record in records}
    [group] = Leaderboard(records, outcomes).groups
    assert {row.strategy: row.time_compares for row in group.rows if row.runs} == {
        "full": True,
        "lora": True,
        "ia3": False,
    }
    told = dict(group.conclusions)
    assert "train time (2 min 30 s)" in told["Not told apart from the best"]
    assert "from 1 min 40 s" not in told["Best for a budget of train time"]
    page = group.to_markdown()
    assert "(1 min 40 s)" in page
    assert (
        "(ia3) are of other machines: products of matrices ran at 900 GFLOP/s there, at 440 to 460 for the rest" in page
    )
    mixed = [
        records[0],
        _priced(make_record, "lora", 0.89, seed=0, seconds=100),
        _priced(make_record, "lora", 0.89, seed=1, seconds=100),
    ]
    mixed = [
        record.model_copy(update={"time": Time(train_seconds=100, matmul_peak_flops_per_second=speed)})
        for record, speed in zip(mixed, (400e9, 400e9, 600e9), strict=True)
    ]
    [group] = Leaderboard(mixed, outcomes).groups
    assert not next(row for row in group.rows if row.strategy == "lora").time_compares, (
        "one seed ran on another machine"
    )
    [group] = Leaderboard([records[0], records[2]], outcomes).groups
    assert {row.strategy: row.time_compares for row in group.rows if row.runs} == {"full": True, "ia3": False}, (
        "the best's"
    )
    unknown = [record.model_copy(update={"time": Time(train_seconds=9)}) for record in records]
    assert Leaderboard(unknown, outcomes).groups[0].times_compare


def test_the_same_rows_marked_whatever_their_order(board, make_record):
    records = [_priced(make_record, name, 0.8, seed=seed) for name in ("a", "b") for seed in (0, 1)]
    outcomes = {record.run: _outcome(320, shift=place) for place, record in enumerate(records)}
    pages = {Leaderboard(order, outcomes).to_markdown() for order in (records, records[::-1])}
    assert len(pages) == 1
    assert "≈" in pages.pop()


def test_what_is_not_tested_is_told_with_the_reason(make_record):
    records = [_priced(make_record, name, value) for name, value in (("full", 0.9), ("lora", 0.8), ("ia3", 0.7))]
    outcomes = {
        records[0].run: _outcome(360),
        records[1].run: Untested("x.csv is missing"),
        records[2].run: _outcome(280, "other"),
    }
    [group] = Leaderboard(records, outcomes).groups
    text = [text for head, text in group.conclusions if head == "Not tested against the best"]
    assert text == ["lora (x.csv is missing).", "ia3 (its predictions are of other test examples)."]
    [group] = Leaderboard(records, outcomes | {records[0].run: Untested("gone")}).groups
    assert ("Not tested against the best", "lora, ia3 (the best row can't be: gone).") in group.conclusions
    assert "against the best |" not in group.to_markdown()


def _write(record, folder, rows):
    with (folder / f"{record.run}.predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["example", "label", "predicted", "p(a)"], *rows])


def test_predictions_are_read_in_a_common_order(make_record, tmp_path):
    half = Metric(value=0.5, low=0.1, high=0.9)
    one, other = (make_record(strategy=name, metrics={"accuracy": half}, predictions="") for name in ("a", "b"))
    one, other = (record.model_copy(update={"predictions": f"{record.run}.predictions.csv"}) for record in (one, other))
    rows = [["k1", "a", "a", 1], ["k2", "b", "a", 1]]
    _write(one, tmp_path, rows)
    _write(other, tmp_path, rows[::-1])
    first, second = read_outcomes([one, other], tmp_path).values()
    assert first.examples == second.examples
    assert first.parts.values.tolist() == second.parts.values.tolist() == [[True], [False]]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, "is missing"),
        ([], "does not give the recorded accuracy"),
        ([["k", "a", "b", 1]] * 3, "does not give the recorded accuracy"),
        ([["k"]], "is damaged"),
    ],
)
def test_predictions_that_do_not_fit_are_told(make_record, tmp_path, rows, words):
    record = make_record()
    record = record.model_copy(update={"predictions": f"{record.run}.predictions.csv"})
    if rows is not None:
        _write(record, tmp_path, rows)
    [outcome] = read_outcomes([record], tmp_path).values()
    assert words in outcome.reason


def test_tuned_rows_show_their_trials_and_stand_apart(make_record):
    trials = [Trial(values={"training.learning_rate": 10**-n}, state="complete", validation=0.5) for n in range(4)]
    tuning = Tuning(study="s", seed=0, trials=trials, chosen={"training.learning_rate": 0.1})
    tuned = make_record(tuning=tuning, settings="lr 0.1 tuned", recipe={"tune": {"trials": 4}})
    [group] = Leaderboard([tuned, make_record(settings="lr 0.1")]).groups
    rows = [row for row in group.rows if row.kind == "strategy"]
    assert {row.settings: (row.num_trials, row.distinction) for row in rows} == {
        "lr 0.1 tuned": (4, ""),
        "lr 0.1": (None, ""),
    }
    assert "| trials |" in group.to_markdown()
    [plain] = Leaderboard([make_record()]).groups
    assert "trials" not in plain.to_markdown()


def test_a_killed_and_resumed_comparison_gives_the_same_page(make_record):
    records = [make_record(strategy=name, seed=seed) for name in ("lora", "full") for seed in (0, 1)]
    killed = make_record(status="cancelled", seed=1, data={}, device=None, precision=None)
    assert Leaderboard([*records, killed]).to_markdown() == Leaderboard(records).to_markdown()


def test_json_says_what_the_page_says(board):
    document = json.loads(json.dumps(board.to_json()))
    assert len(document["rows"]) == 5
    [group] = document["groups"]
    best, second, *_ = group["ranking"]
    assert best["against_best"]["place"] == "best"
    assert second["against_best"]["difference"] == pytest.approx(-0.01)
    assert second["runs"]


def test_one_page_from_disk_and_from_memory(make_record, tmp_path):
    record = make_record()
    write_record(record, tmp_path)
    assert Leaderboard.from_results(tmp_path).to_markdown() == Leaderboard([record]).to_markdown()
