from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pewb.leaderboard import rows_of
from pewb.record import NUMERICS_VERSION, Memory, Peak, Time, Tuning


def test_one_run_is_one_row_with_what_it_measured(make_record):
    record = make_record()
    (row,) = rows_of([record])
    for name in (
        "backbone",
        "task",
        "strategy",
        "settings",
        "quantization",
        "precision",
        "parameters",
        "memory",
        "time",
    ):
        assert getattr(row, name) == getattr(record, name)
    assert row.metrics == record.metrics
    assert row.baseline == record.baseline
    assert (row.device, row.device_names, row.seeds, row.runs) == ("cpu", ["EPYC"], [0], [record.run])
    assert row.records == [f"{record.run}.json"]
    assert row.trainable_share == pytest.approx(74_114 / 22_787_330)
    assert row.outcomes == {"success": 1}
    assert row.main == record.metrics["accuracy"]


def test_seeds_are_pooled(make_record):
    first = make_record(seed=0, accuracy=0.8, time=Time(train_seconds=10))
    second = make_record(
        seed=1, accuracy=0.9, time=Time(train_seconds=20), memory=Memory(train=Peak(peak_allocated_bytes=2**30))
    )
    (row,) = rows_of([second, first])
    assert row.seeds == [0, 1]
    assert row.metrics["accuracy"].value == pytest.approx(0.85)
    assert row.time.train_seconds == 15
    assert row.time.load_seconds is None
    assert row.memory.train.peak_allocated_bytes == 2**30
    assert row.memory.train.peak_resident_bytes == 900 * 2**20


def test_a_repeated_seed_counts_once_and_is_kept_visible(make_record):
    earlier, later = make_record(accuracy=0.7), make_record(accuracy=0.8)
    (row,) = rows_of([later, earlier])
    assert row.seeds == [0]
    assert row.metrics["accuracy"].value == 0.8
    assert set(row.runs) == {earlier.run, later.run}


def test_a_cancelled_repeat_does_not_displace_a_result(make_record):
    (row,) = rows_of([make_record(accuracy=0.7), make_record(status="cancelled")])
    assert (row.status, row.outcomes, len(row.runs)) == ("success", {"success": 1}, 2)


def test_a_failed_run_is_a_row_with_its_reason(make_record):
    (row,) = rows_of([make_record(status="out_of_memory", reason="needs 12 GiB")])
    assert (row.status, row.reason, row.metrics, row.main) == ("out_of_memory", "needs 12 GiB", {}, None)


def test_a_failed_seed_is_seen_beside_those_that_succeeded(make_record):
    (row,) = rows_of(
        [
            make_record(seed=0),
            make_record(seed=1, status="out_of_memory", reason="too large"),
            make_record(seed=2, accuracy=0.9),
        ]
    )
    assert row.status == "success"
    assert row.outcomes == {"out_of_memory": 1, "success": 2}
    assert row.seeds == [0, 1, 2]
    assert row.reason == "too large"
    assert row.metrics["accuracy"].value == pytest.approx(0.85)


def test_a_seed_that_failed_early_joins_its_row(make_record, make_early_failure):
    (row,) = rows_of([make_record(seed=0), make_early_failure(seed=1, status="failed")])
    assert row.outcomes == {"failed": 1, "success": 1}


def test_a_refused_strategy_joins_the_only_place_it_can_belong_to(make_record, make_early_failure):
    rows = rows_of(
        [make_record(), make_early_failure(strategy="full"), make_record(status="out_of_memory", strategy="mam")]
    )
    assert {(row.test_digest, row.device, row.main_metric) for row in rows} == {("e" * 64, "cpu", "accuracy")}


def test_a_refused_strategy_stands_alone_where_its_place_is_not_clear(make_record, make_early_failure):
    refused = make_early_failure(strategy="full")
    rows = rows_of([make_record(), make_record(device_kind="cuda"), refused])
    assert len(rows) == 3
    assert {row.strategy: row.device for row in rows}["full"] is None


def test_a_success_of_unknown_test_set_is_not_taken_for_another(make_record):
    rows = rows_of([make_record(), make_record(seed=1, data={})])
    assert len(rows) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"test_digest": "f" * 64},
        {"backbone_digest": "c" * 64},
        {"backbone": "other"},
        {"task": "other"},
        {"device_kind": "cuda"},
        {"strategy": "full"},
        {"settings": "lr 2e-3"},
        {"quantization": "nf4"},
        {"precision": "bf16"},
        {"numerics_version": NUMERICS_VERSION + 1},
        {"recipe": {"training": {"weight_decay": 0.0}}},
        {"recipe": {"device": {"memory": "8GiB"}}},
    ],
)
def test_other_conditions_are_another_row(make_record, fields):
    assert len(rows_of([make_record(), make_record(**fields)])) == 2


def test_what_alters_nothing_does_not_split_a_row(make_record):
    plain = {
        "training": {"precision": "auto", "new_option": None},
        "device": {"kind": "auto", "threads": 4},
        "task": ["a", "movies"],
    }
    asked = {"training": {"precision": "fp32"}, "device": {"kind": "cpu"}, "task": "movies"}
    assert len(rows_of([make_record(seed=0, recipe=plain), make_record(seed=1, recipe=asked)])) == 1


def test_rows_that_look_alike_say_how_they_differ(make_record):
    rows = rows_of(
        [
            make_record(recipe={"training": {"weight_decay": 0.0}}),
            make_record(recipe={"training": {"weight_decay": 0.1, "seen": "x"}}),
        ]
    )
    assert sorted(row.distinction for row in rows) == [
        "training.seen=unset, training.weight_decay=0.0",
        "training.seen=x, training.weight_decay=0.1",
    ]
    assert rows_of([make_record()])[0].distinction == ""


def test_older_numerics_are_marked(make_record):
    rows = rows_of([make_record(), make_record(numerics_version=NUMERICS_VERSION - 1)])
    assert {row.numerics_version: row.older_numerics for row in rows} == {
        NUMERICS_VERSION: False,
        NUMERICS_VERSION - 1: True,
    }


def test_warnings_tell_how_many_seeds_gave_them(make_record):
    (row,) = rows_of(
        [make_record(seed=0, warnings=["predicts one class only", "shared"]), make_record(seed=1, warnings=["shared"])]
    )
    assert row.warnings == ["predicts one class only (1 of 2 seeds)", "shared"]


_SOME = st.lists(
    st.fixed_dictionaries(
        {
            "strategy": st.sampled_from(["lora", "full"]),
            "seed": st.integers(0, 2),
            "status": st.sampled_from(["success", "failed", "refused", "cancelled"]),
            "device_kind": st.sampled_from(["cpu", "cuda"]),
            "precision": st.sampled_from(["bf16", None]),
            "data": st.sampled_from([{}, {"test_digest": "x"}, {"test_digest": "y"}]),
        }
    ),
    max_size=8,
)


@given(fields=_SOME, random=st.randoms(use_true_random=False))
def test_every_record_is_in_one_row_whatever_their_order(make_record, fields, random):
    records = [make_record(**one) for one in fields]
    rows = rows_of(records)
    assert Counter(run for row in rows for run in row.runs) == Counter(record.run for record in records)
    for row in rows:
        assert len(set(row.seeds)) == len(row.seeds) == sum(row.outcomes.values())
    shuffled = list(records)
    random.shuffle(shuffled)
    assert sorted(rows_of(shuffled), key=lambda row: row.runs) == sorted(rows, key=lambda row: row.runs)


def _data(**more):
    return {"test_examples": 10, "test_digest": "e" * 64, "majority_share": 0.5} | more


def test_a_later_failure_does_not_erase_a_success(make_record):
    good = make_record(finished_at="2025-01-01T00:00:00Z")
    failed = make_record(status="out_of_memory", metrics={}, finished_at="2025-01-02T00:00:00Z")
    [row] = rows_of([good, failed])
    assert (row.status, row.metrics["accuracy"].value, len(row.runs)) == ("success", 0.8, 2)


def test_a_search_that_failed_is_no_row_once_it_has_ended_well(make_record):
    searched = {"training": {"learning_rate": 1e-3}, "tune": {"trials": 4}}
    other = {"training": {"learning_rate": 2e-3}, "tune": {"trials": 4}}
    failed = [make_record(seed=seed, status="failed", settings="no lr", recipe=searched) for seed in (0, 1)]
    tuning = Tuning(study=failed[0].identity, seed=0, trials=[], chosen={}, notices=[])
    success = make_record(recipe=searched, tuning=tuning)
    unlike = make_record(status="failed", settings="no lr", recipe=other)
    assert len(rows_of(failed)) == 1
    assert {run for row in rows_of([*failed, success, unlike]) for run in row.runs} == {success.run, unlike.run}


def test_other_ways_to_divide_the_same_file_are_other_rows(make_record):
    tasks = [{"data": "all.csv", "split": {"train": share, "validation": 10, "test": 10}} for share in (80, 40)]
    records = [make_record(seed=seed, recipe={"task": task}) for seed, task in enumerate(tasks)]
    assert len(rows_of(records)) == 2
    moved = [make_record(seed=seed, recipe={"task": {"data": name}}) for seed, name in enumerate(["a.csv", "b/a.csv"])]
    assert len(rows_of(moved)) == 1, "files are compared by their digests, not by their names"


def test_runs_on_less_data_stand_in_a_table_of_their_own(make_record):
    from pewb.leaderboard import Leaderboard

    records = [make_record(data=_data(train_examples=count)) for count in (8000, 64)]
    assert [group.title for group in Leaderboard(records).groups] == [
        "minilm-l6 · movies (8,000 training, 10 test examples) · cpu",
        "minilm-l6 · movies (64 training, 10 test examples) · cpu",
    ]


def test_rows_of_other_budgets_say_so(make_record):
    records = [
        make_record(strategy=name, recipe={"strategy": {"kind": name}, "training": {"max_tokens": size}})
        for name, size in (("lora", 128), ("full", 64))
    ]
    assert {row.strategy: row.distinction for row in rows_of(records)} == {
        "lora": "training.max_tokens=128",
        "full": "training.max_tokens=64",
    }


def test_a_method_is_its_settings_but_for_how_fast_and_how_long(make_record):
    settings = "r=8 a=16 query+value, lr 0.0011 tuned, LoRA+ 16, 3 epochs, at most 5 steps"
    rows = rows_of([make_record(settings=settings), make_record(settings="dora r=8, no lr chosen, 3 epochs")])
    assert {row.method for row in rows} == {"lora r=8 a=16 query+value LoRA+ 16", "lora dora r=8"}
