import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pewb import record as records
from pewb.errors import InputError
from pewb.record import (
    NUMERICS_VERSION,
    SCHEMA_VERSION,
    AssetRecord,
    Curves,
    Metric,
    Record,
    free_name,
    identity_of,
    read_record,
    read_records,
    run_name,
    write_record,
)


def _record(**fields):
    return Record.model_validate(
        {
            "run": "lora-minilm-l6-movies-seed0-abcd1234",
            "identity": "abcd1234",
            "status": "success",
            "started_at": "2025-01-01T00:00:00+00:00",
            "finished_at": "2025-01-01T00:01:00+00:00",
            "backbone": "minilm-l6",
            "task": "movies",
            "strategy": "lora",
            "settings": "rank 8, α 16",
            "quantization": "none",
            "seed": 0,
            "recipe_given": {},
            "recipe_resolved": {},
        }
        | fields
    )


def _asset(**fields):
    return AssetRecord.model_validate(
        {"name": "minilm-l6", "kind": "backbone", "source": "hub", "digests": {"a": "1", "b": "2"}} | fields
    )


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = _record(
        assets=[_asset()],
        curves=Curves(loss=[(1, 0.7), (2, 0.6)]),
        metrics={"accuracy": Metric(value=0.8, low=0.7, high=0.9)},
        warnings=["ünïcode"],
    )
    path = write_record(record, tmp_path / "results")
    assert path.name == f"{record.run}.json"
    assert read_record(path) == record
    assert read_records(tmp_path / "results") == [record]
    assert list((tmp_path / "results").iterdir()) == [path]
    assert "ünïcode" in path.read_text(encoding="utf-8")


def _refuse_links(*_):
    raise OSError("this file system has no hard links")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_record_is_never_overwritten(tmp_path, monkeypatch, has_links):
    if not has_links:
        monkeypatch.setattr(os, "link", _refuse_links)
    path = write_record(_record(), tmp_path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="never edited"):
        write_record(_record(seed=1), tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_records_are_read_in_the_order_of_their_names(tmp_path):
    for name in ("b", "c", "a"):
        write_record(_record(run=name), tmp_path)
    (tmp_path / "a.predictions.tsv").write_text("no record")
    assert [record.run for record in read_records(tmp_path)] == ["a", "b", "c"]
    assert read_records(tmp_path / "missing") == []


def test_a_newer_record_is_refused(tmp_path):
    path = tmp_path / "new.json"
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(InputError, match=rf"new\.json has schema version {SCHEMA_VERSION + 1}.*install a newer pewb"):
        read_record(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '"text"', '{"schema_version": "1"}', '{"schema_version": 0}', "\0"]
)
def test_a_damaged_file_is_refused(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"broken\.json"):
        read_record(path)


@pytest.mark.parametrize(
    "change", [{"status": "fine"}, {"seed": "zero"}, {"unknown_key": 1}, {"memory": {"train": {"x": 1}}}]
)
def test_a_record_of_the_wrong_shape_is_refused_with_the_place(tmp_path, change):
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(_record().model_dump(mode="json") | change))
    with pytest.raises(InputError, match=next(iter(change))):
        read_record(path)


def test_an_older_record_is_upgraded_step_by_step(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "SCHEMA_VERSION", 3)
    first = {1: lambda content: content | {"settings": content["settings"] + " b"}}
    monkeypatch.setattr(
        records, "_UPGRADES", first | {2: lambda content: content | {"settings": content["settings"] + " c"}}
    )
    path = tmp_path / "old.json"
    path.write_text(json.dumps(_record(schema_version=1, settings="a").model_dump(mode="json")))
    before = path.read_bytes()
    upgraded = read_record(path)
    assert (upgraded.settings, upgraded.schema_version) == ("a b c", 3)
    assert path.read_bytes() == before


NEW_TIMES = (
    "generate_seconds",
    "prefix_seconds",
    "flops_per_second",
    "matmul_peak_flops_per_second",
    "model_flops_utilization",
)


def test_a_record_of_schema_1_is_read_as_what_it_was():
    path = Path(__file__).parent / "fixtures" / "record_schema_1.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    record = read_record(path)
    assert content["schema_version"] == 1
    assert (record.schema_version, record.is_reference, record.tuning) == (SCHEMA_VERSION, False, None)
    upgraded = record.model_dump(mode="json")
    named = {"variant": "plain"} | content["recipe_resolved"]["strategy"]
    assert upgraded["recipe_resolved"].pop("strategy") == named, "there was one kind of LoRA then"
    content["recipe_resolved"].pop("strategy")
    sections = {"memory": {"prefix_cache_bytes": None}, "time": dict.fromkeys(NEW_TIMES)}  # nothing was measured of it
    assert {key: upgraded[key] for key in content if key != "schema_version"} == {
        key: sections[key] | value if key in sections else value
        for key, value in content.items()
        if key != "schema_version"
    }


def test_what_is_left_out_does_not_alter_the_identity():
    assert identity_of({"a": 1, "new": None, "b": {"c": None}}, []) == identity_of({"a": 1, "b": {}}, [])


def test_every_older_schema_version_has_its_upgrade():
    assert set(records._UPGRADES) == set(range(1, SCHEMA_VERSION))


def test_identity_is_that_of_recipe_and_assets():
    recipe = {"strategy": {"kind": "lora", "rank": 8}, "seed": 0}
    identity = identity_of(recipe, [_asset()])
    assert re.fullmatch("[0-9a-f]{64}", identity)
    assert (
        identity_of({"seed": 0, "strategy": {"rank": 8, "kind": "lora"}}, [_asset(digests={"b": "2", "a": "1"})])
        == identity
    )
    assert identity_of(recipe | {"seed": 1}, [_asset()]) != identity
    assert identity_of(recipe, [_asset(digests={"a": "1", "b": "3"})]) != identity
    assert identity_of(recipe, [_asset(kind="task")]) != identity
    assert identity_of(recipe, [_asset(), _asset(kind="task")]) == identity_of(recipe, [_asset(kind="task"), _asset()])


def test_identity_changes_with_the_numerics(monkeypatch):
    before = identity_of({}, [])
    monkeypatch.setattr(records, "NUMERICS_VERSION", NUMERICS_VERSION + 1)
    assert identity_of({}, []) != before


_NAMES = st.text(max_size=300)


@given(_NAMES, _NAMES, _NAMES, _NAMES, st.integers(0, 2**63), st.text("0123456789abcdef", min_size=8, max_size=64))
def test_a_runs_name_is_a_safe_file_name(backbone, task, strategy, quantization, seed, identity):
    name = run_name(backbone, task, strategy, quantization, seed, identity)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name)
    assert len(f"{name}-99.json.1234567.partial") <= 255
    assert name.endswith(identity[:8])
    assert f"seed{seed}" in name


def test_a_runs_name_reads_well():
    assert (
        run_name("org/model-7b", "sst2", "lora", "nf4 double", 3, "0123456789")
        == "lora-org-model-7b-sst2-nf4-double-seed3-01234567"
    )
    assert run_name("/home/me/bert", "sst2", "full", "none", 0, "0123456789") == "full-home-me-bert-sst2-seed0-01234567"


def test_a_free_name_counts_on(tmp_path):
    assert free_name(tmp_path / "missing", "run") == "run"
    for expected in ("run", "run-2", "run-3"):
        name = free_name(tmp_path, "run")
        assert name == expected
        write_record(_record(run=name), tmp_path)


def test_a_summary_tells_status_figures_and_place(tmp_path):
    summary = _record().summary(tmp_path / "x.json")
    assert summary["status"] == "success"
    assert summary["record"] == str(tmp_path / "x.json")
    assert json.loads(json.dumps(summary)) == summary
