import multiprocessing
import shutil
import threading

import pytest

from pewb.assets import cached, fetch, fetch_first, hub_api
from pewb.assets.cache import digest_file
from pewb.errors import InputError, UnavailableError

MODEL = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": b"weights " * 5000,
    "pytorch_model.bin": b"pickle",
    "tokenizer.json": b"{}",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "README.md": b"# hello",
}
FIRST, SECOND = "a" * 40, "b" * 40
WEIGHTS = f"/org/model/resolve/{FIRST}/model.safetensors"


@pytest.fixture
def model(a_hub):
    a_hub.repositories["models/org/model"] = {FIRST: dict(MODEL)}
    return a_hub


def forget_files(cache):
    shutil.rmtree(cache / "files")


def test_only_needed_files_are_fetched_and_recorded(model, cache, reports):
    asset = fetch("backbone", "org/model", reports)
    assert asset.source == f"hub:org/model@{FIRST}"
    assert asset.hub_id == "org/model"
    assert sorted(asset.digests) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(path.name for path in asset.folder.iterdir()) == sorted(asset.digests)
    assert all(digest_file(asset.folder / path) == digest for path, digest in asset.digests.items())
    assert asset.to_record().digests == asset.digests
    total = sum(len(MODEL[path]) for path in asset.digests)
    assert reports.stages[-1][:3] == ("fetching org/model", total, total)
    assert not list((cache / "downloads").glob("*.partial"))


def test_cached_copy_needs_no_network(model, monkeypatch):
    assert not cached("backbone", "org/model")
    first = fetch("backbone", "org/model")
    seen = len(model.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert cached("backbone", "org/model")
    assert fetch("backbone", "org/model") == first
    assert len(model.requests) == seen


def test_task_takes_tables_at_any_depth(a_hub):
    a_hub.repositories["datasets/org/data"] = {
        FIRST: {
            "data/train-0.parquet": b"p",
            "b/test.csv": b"c",
            "dataset_infos.json": b"{}",
            ".x/y.csv": b"",
            "make.py": b"",
        }
    }
    assert sorted(fetch("task", "org/data").digests) == ["b/test.csv", "data/train-0.parquet"]


def test_task_without_tables_names_the_converted_revision(a_hub):
    a_hub.repositories["datasets/org/data"] = {FIRST: {"make.py": b""}}
    with pytest.raises(UnavailableError, match="refs/convert/parquet"):
        fetch("task", "org/data")


def test_token_goes_to_the_hub(model, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch("backbone", "org/model")
    assert set(model.tokens) == {"Bearer hf_secret"}


@pytest.mark.parametrize("behaviour", ["silent", "trickle"])
def test_slow_hub_is_given_up_at_the_deadline(a_hub, behaviour, monkeypatch):
    a_hub.behaviour = behaviour
    waited = []
    join = threading.Thread.join
    monkeypatch.setattr(hub_api, "PROBE_SECONDS", 0.3)
    monkeypatch.setattr(
        threading.Thread, "join", lambda self, timeout=None: (waited.append(timeout), join(self, timeout))[1]
    )
    with pytest.raises(UnavailableError, match=r"can't be reached.*no answer within 0.3 s"):
        fetch("backbone", "org/model")
    assert waited.count(0.3) == 1
    assert len(a_hub.requests) == 1


def test_hub_whose_files_do_not_come_is_given_up_at_the_deadline(model, monkeypatch):
    """A network may let the API through, but not the host that has the files."""
    model.behaviour = "silent files"
    monkeypatch.setattr(hub_api, "PROBE_SECONDS", 0.3)
    with pytest.raises(UnavailableError, match=r"can't be reached.*its files do not come"):
        fetch("backbone", "org/model")
    asked = len(model.requests)
    with pytest.raises(UnavailableError):
        fetch("backbone", "org/model")
    assert len(model.requests) == asked, "found out once"


def test_only_the_named_files_of_a_data_set_are_fetched(a_hub):
    a_hub.repositories["datasets/org/many"] = {
        "c" * 40: {"one/train.csv": b"a,b\n1,2\n", "one/test.csv": b"a,b\n1,2\n", "two/train.csv": b"a,b\n1,2\n"}
    }
    asset = fetch("task", "org/many", files=["one/train.csv", "one/te*.csv"])
    assert sorted(asset.digests) == ["one/test.csv", "one/train.csv"]


@pytest.mark.parametrize("behaviour", ["html", "no sha", "error"])
def test_what_is_no_hub_is_found_out_once(a_hub, behaviour):
    a_hub.behaviour = behaviour
    for name in ("org/model", "org/other", "org/model"):
        with pytest.raises(UnavailableError, match="the model hub can't be reached"):
            fetch("backbone", name)
    assert len(a_hub.requests) == 1


def test_closed_port_is_said_in_one_line(monkeypatch, closed_port):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port}")
    with pytest.raises(UnavailableError, match=r"refused.*HF_ENDPOINT") as caught:
        fetch("backbone", "org/model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_is_honoured_at_once(model, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with pytest.raises(UnavailableError, match=f"{name}=1 is set"):
        fetch("backbone", "org/model")
    assert not model.requests


def test_missing_repository_says_nothing_of_the_hub(model):
    with pytest.raises(UnavailableError, match="has no 'org/absent' at revision 'main'"):
        fetch("backbone", "org/absent")
    assert fetch("backbone", "org/model")


def test_gated_repository_asks_for_a_token(model):
    model.statuses["/api/models/org/gated/revision/main"] = 403
    with pytest.raises(UnavailableError, match=r"gated.*HF_TOKEN"):
        fetch("backbone", "org/gated")
    model.statuses[WEIGHTS] = 401
    with pytest.raises(UnavailableError, match=r"gated.*HF_TOKEN"):
        fetch("backbone", "org/model")


def test_broken_connection_is_taken_up_where_it_broke(model):
    model.cuts[WEIGHTS] = [16000]
    assert fetch("backbone", "org/model").digests
    assert model.ranges("model.safetensors") == [None, "bytes=16000-"]


def test_second_call_goes_on_where_the_first_stopped(model):
    model.cuts[WEIGHTS] = [16000, 0]
    with pytest.raises(UnavailableError, match=r"broke off.*goes on"):
        fetch("backbone", "org/model")
    fetched = fetch("backbone", "org/model")
    assert (fetched.folder / "model.safetensors").read_bytes() == MODEL["model.safetensors"]
    assert model.ranges("model.safetensors") == [None, "bytes=16000-", "bytes=16000-"]
    assert len(model.ranges("config.json")) == 1


def test_content_other_than_announced_is_refused(model):
    model.announced["model.safetensors"] = {"lfs": {"sha256": "0" * 64}}
    with pytest.raises(UnavailableError, match="another content than it has announced"):
        fetch("backbone", "org/model")
    assert len(model.ranges("model.safetensors")) == 2


def test_branch_that_moved_is_held_to_the_first_commit_until_renewed(model, cache):
    fetch("backbone", "org/model")
    model.repositories["models/org/model"][SECOND] = MODEL | {"tokenizer.json": b'{"new": 1}'}
    forget_files(cache)
    assert fetch("backbone", "org/model").source.endswith(FIRST)
    assert fetch("backbone", "org/model", renew=True).source.endswith(SECOND)
    assert fetch("backbone", "org/model").source.endswith(SECOND)


def test_changed_content_is_refused_until_renewed(model, cache):
    first = fetch("backbone", "org/model")
    model.repositories["models/org/model"][FIRST]["tokenizer.json"] = b'{"changed": 1}'
    assert fetch("backbone", "org/model") == first
    forget_files(cache)
    with pytest.raises(
        InputError, match=r"tokenizer.json on the hub is not what it was.*pewb fetch org/model --renew"
    ) as caught:
        fetch("backbone", "org/model")
    assert not isinstance(caught.value, UnavailableError)
    assert fetch("backbone", "org/model", renew=True).digests["tokenizer.json"] != first.digests["tokenizer.json"]


def test_commit_that_is_gone_points_to_renew(model, cache):
    fetch("backbone", "org/model")
    forget_files(cache)
    model.repositories["models/org/model"] = {SECOND: dict(MODEL)}
    with pytest.raises(UnavailableError, match=r"was there when.*--renew"):
        fetch("backbone", "org/model")


def test_damaged_file_is_reported_and_only_it_is_fetched_again(model, reports):
    asset = fetch("backbone", "org/model")
    (asset.folder / "tokenizer.json").write_bytes(b"[]")
    assert fetch("backbone", "org/model", reports) == asset
    assert reports.notices == ["org/model: tokenizer.json in the cache is damaged or changed; fetching it again"]
    assert len(model.ranges("tokenizer.json")) == 2
    assert len(model.ranges("model.safetensors")) == 1


def test_pickle_only_is_refused(a_hub):
    a_hub.repositories["models/org/old"] = {FIRST: {"config.json": b"{}", "pytorch_model.bin": b"pickle"}}
    with pytest.raises(UnavailableError, match=r"pickle.*can run code.*@refs/pr/1"):
        fetch("backbone", "org/old")


def test_pull_request_revision(a_hub):
    a_hub.repositories["models/org/old"] = {"refs/pr/1": dict(MODEL)}
    a_hub.statuses = {}
    with pytest.raises(UnavailableError, match="does not answer as a hub"):  # a commit that is no commit
        fetch("backbone", "org/old@refs/pr/1")
    assert a_hub.requests[0][0] == "/api/models/org/old/revision/refs/pr/1"


def test_name_that_leads_out_of_its_folder_is_refused(a_hub, cache):
    a_hub.repositories["datasets/org/evil"] = {FIRST: {"../../../evil.csv": b"x"}}
    with pytest.raises(UnavailableError, match="leads out of its folder"):
        fetch("task", "org/evil")
    assert not (cache / "files").exists()


def test_one_gguf_of_several_is_named(a_hub):
    a_hub.repositories["models/org/packed"] = {FIRST: {"a.Q4.gguf": b"4", "a.Q8.gguf": b"8"}}
    with pytest.raises(UnavailableError, match=r"2 GGUF files.*org/name/a\.Q4\.gguf"):
        fetch("backbone", "org/packed")
    assert list(fetch("backbone", "org/packed/a.Q8.gguf").digests) == ["a.Q8.gguf"]


def test_weights_are_not_fetched_twice(a_hub):
    files = {
        "config.json": b"{}",
        "model.safetensors": b"w",
        "consolidated.safetensors": b"w",
        "model.fp16.safetensors": b"w",
    }
    a_hub.repositories["models/org/model"] = {FIRST: files}
    assert sorted(fetch("backbone", "org/model").digests) == ["config.json", "model.safetensors"]


def test_first_that_can_be_had(a_hub, tmp_path, reports):
    a_hub.behaviour = "html"
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "t.csv").write_text("a,b\n")
    asset = fetch_first("task", ["sst2", "org/data", str(folder)], reports)
    assert asset.source == f"folder:{folder}"
    assert len(reports.notices) == 2
    assert reports.notices[0].startswith("sst2: the model hub can't be reached")
    assert reports.notices[0].endswith(f"; using {folder} instead")
    assert len(a_hub.requests) == 1


def _fetch_in_process(folder, queue):
    try:
        queue.put(fetch("backbone", "org/model").digests)
    except Exception as error:
        queue.put(repr(error))


def test_two_processes_at_once(model, cache):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_fetch_in_process, args=(str(cache), queue)) for _ in range(2)]
    for process in processes:
        process.start()
    first, second = queue.get(timeout=60), queue.get(timeout=60)
    for process in processes:
        process.join(60)
    assert first == second == fetch("backbone", "org/model").digests
    assert len(model.ranges("model.safetensors")) == 1


def test_backbone_without_its_weights(model, monkeypatch):
    part = fetch("backbone", "org/model", without_weights=True)
    assert sorted(part.digests) == ["config.json", "tokenizer.json"]
    assert part.source == f"hub:org/model@{FIRST}"
    assert not any(path.endswith(".safetensors") for path, _ in model.requests)
    assert not cached("backbone", "org/model"), "the weights are still to come"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch("backbone", "org/model", without_weights=True) == part
    with pytest.raises(UnavailableError, match="HF_HUB_OFFLINE"):
        fetch("backbone", "org/model")


def test_whole_backbone_serves_where_no_weights_are_needed(model, monkeypatch):
    whole = fetch("backbone", "org/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch("backbone", "org/model", without_weights=True) == whole


def test_part_is_held_to_what_the_whole_was(model, cache):
    fetch("backbone", "org/model")
    forget_files(cache)
    model.repositories["models/org/model"][FIRST]["tokenizer.json"] = b'{"other": 1}'
    model.repositories["models/org/model"][SECOND] = dict(MODEL)
    with pytest.raises(InputError, match=r"tokenizer\.json on the hub is not what it was"):
        fetch("backbone", "org/model", without_weights=True)
    model.repositories["models/org/model"][FIRST] = dict(MODEL)
    assert fetch("backbone", "org/model", without_weights=True).source == f"hub:org/model@{FIRST}"


def test_configuration_inside_the_weights_brings_them(a_hub):
    a_hub.repositories["models/org/packed"] = {FIRST: {"model.gguf": b"gguf", "README.md": b"#"}}
    assert sorted(fetch("backbone", "org/packed", without_weights=True).digests) == ["model.gguf"]


def test_weights_that_would_be_refused_are_refused_without_them_too(model):
    del model.repositories["models/org/model"][FIRST]["model.safetensors"]
    with pytest.raises(UnavailableError, match="pickle"):
        fetch("backbone", "org/model", without_weights=True)


def test_looking_at_data_brings_no_weights(a_hub, tiny_backbone, sentence_files, tmp_path):
    from pewb.inspection import inspect
    from pewb.recipe import load_recipe

    files = {path.name: path.read_bytes() for path in tiny_backbone("bert").iterdir()}
    a_hub.repositories["models/org/tiny"] = {FIRST: files}
    table = ", ".join(
        f'{name} = "{(sentence_files / f"{name}.csv").as_posix()}"' for name in ("train", "validation", "test")
    )
    (tmp_path / "recipe.toml").write_text(
        f'backbone = "org/tiny"\nstrategy = "lora"\ntask = {{ {table}, text = "sentence" }}\n'
    )
    assert inspect(load_recipe(tmp_path / "recipe.toml")).shown[0].tokens[0] == "[CLS]"
    assert any(path.endswith("tokenizer.json") for path, _ in a_hub.requests)
    assert not any(path.endswith(".safetensors") for path, _ in a_hub.requests)
