import subprocess
import sys

import pytest
from pydantic import ValidationError

from pewb.assets import backbones, tasks
from pewb.assets.catalog import HubSource, PypiSource
from pewb.tasks import decode_task

ENTRIES = {**backbones(), **tasks()}


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_says_what_it_is(name):
    entry = ENTRIES[name]
    assert entry.description
    assert entry.license
    assert entry.homepage


def test_hub_id_is_that_of_the_hub_source():
    assert backbones()["minilm-l6"].hub_id == "sentence-transformers/all-MiniLM-L6-v2"
    assert backbones()["smollm2-135m-instruct-q4_1"].hub_id is None
    assert isinstance(tasks()["sst2"].sources[0], HubSource)


@pytest.mark.parametrize("name", tasks())
def test_spec_is_a_task(name):
    task = decode_task(tasks()[name].spec)
    assert task.missing_files() is None
    assert task.assumed_labels() is not None or tasks()[name].num_classes


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "a/../../b", "C:\\evil", "..\\evil", ""])
def test_names_that_lead_out_of_a_folder_are_refused(path):
    whole = {"pypi": "a==1", "file": "a.whl", "sha256": "0" * 64}
    with pytest.raises(ValidationError, match="no path inside"):
        PypiSource(**whole, members={path: "inside"})
    with pytest.raises(ValidationError, match="no path inside"):
        PypiSource(**whole, members={"local": f"inside.tar.gz!{path}"})


def test_import_is_light():
    heavy = "torch transformers datasets pandas numpy httpx2 huggingface_hub unearth filelock"
    code = f"import sys, pewb.assets; print(sorted(set('{heavy}'.split()) & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
