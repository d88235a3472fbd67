"""The doctor finds what is wrong, says what to do, and falls over nothing."""

import pytest

from pewb.device import choose_device
from pewb.doctor import examination, examine
from pewb.recipe import DeviceSection
from tests.assets.conftest import Reports


@pytest.fixture
def found(monkeypatch, tmp_path):
    """Return a function that examines this installation and returns the findings by name."""
    monkeypatch.setenv("PEWB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(examination, "hub_fault", lambda: None)
    monkeypatch.setattr(examination, "package_index_fault", lambda: None)
    return lambda: {one.name: one for one in examine(Reports())}


def test_what_is_tested_here_is_well(found, tmp_path):
    findings = found()
    assert {name: one.state for name, one in findings.items()} == dict.fromkeys(
        ("packages", "device", "quantization", "cache", "model hub", "package index"), "ok"
    )
    assert "torch" in findings["packages"].text
    assert findings["quantization"].text.startswith("int8, nf4, fp4 work")
    assert str(tmp_path / "cache") in findings["cache"].text
    assert list((tmp_path / "cache").iterdir()) == [], "nothing is left behind"


def test_a_package_of_another_version_or_none(found, monkeypatch):
    monkeypatch.setattr(
        examination, "requires", lambda _: ["torch>=99", "no-such-package>=1", 'pytest>1; extra == "test"']
    )
    finding = found()["packages"]
    assert finding.state == "fault"
    assert "torch is 2" in finding.text
    assert ">=99 is needed" in finding.text
    assert "no-such-package is missing" in finding.text
    assert "pytest" not in finding.text
    assert finding.remedy


def test_a_cache_that_is_a_file(found, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PEWB_CACHE", str(tmp_path / "file"))
    finding = found()["cache"]
    assert (finding.state, "PEWB_CACHE" in finding.remedy) == ("fault", True)


def test_a_kind_of_storage_that_fails_is_named_and_the_others_work(found, monkeypatch):
    real = examination._train_through

    def broken(kind, device):
        if kind == "int8":
            raise RuntimeError("no kernel image is available\nfor this device")
        real(kind, device)

    monkeypatch.setattr(examination, "_train_through", broken)
    told = [(one.state, one.text) for one in examine(Reports()) if one.name == "quantization"]
    assert told == [
        ("ok", f"nf4, fp4 work on {choose_device(DeviceSection()).type}"),
        ("warning", "int8 does not work: no kernel image is available"),
    ]


def test_what_nobody_thought_of_is_a_fault_too(found, monkeypatch):
    def broken():
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(examination, "_train_through", lambda *_: None)
    monkeypatch.setattr(examination, "cache_folder", broken)
    assert (found()["cache"].state, found()["cache"].text) == ("fault", "ZeroDivisionError: division by zero")
