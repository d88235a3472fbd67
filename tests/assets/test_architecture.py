import json

import pytest

from pewb.anatomy import longest_input
from pewb.assets import architecture, backbones, fetch, resolve
from pewb.assets import architecture as _function
from pewb.assets.catalog import BackboneEntry
from pewb.errors import InputError, UnavailableError

KNOWN = [name for name, entry in backbones().items() if entry.config]
CONFIG = {"model_type": "bert", "hidden_size": 8}
MODEL = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"weights " * 500, "tokenizer.json": b"{}"}
FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture
def model(a_hub):
    a_hub.repositories["models/org/model"] = {FIRST: dict(MODEL)}
    return a_hub


@pytest.fixture
def catalogue(monkeypatch):
    def put(**facts):
        entry = BackboneEntry(description="", license="", model_type="bert", **facts)
        for module in (resolve, __import__("sys").modules[_function.__module__]):
            monkeypatch.setattr(module, "backbones", lambda: {"demo": entry})

    return put


def fetched(server):
    return [path.rpartition("/")[2] for path, _ in server.requests if "/resolve/" in path]


def test_every_backbone_of_the_catalogue_is_known():
    assert list(backbones()) == KNOWN


@pytest.mark.parametrize("name", KNOWN)
def test_model_that_is_built_has_the_published_parameters(name, reports):
    torch = pytest.importorskip("torch")
    import transformers

    entry = backbones()[name]
    content = architecture(name, reports)
    assert content["model_type"] == entry.model_type
    assert entry.config_source.startswith("https://huggingface.co/")
    kinds = {"base": "AutoModel", "causal_lm": "AutoModelForCausalLM", "seq2seq_lm": "AutoModelForSeq2SeqLM"}
    config = transformers.AutoConfig.for_model(**content)
    with torch.device("meta"):
        built = getattr(transformers, kinds[entry.parameters_of]).from_config(config)
    assert sum(parameter.numel() for parameter in built.parameters()) == entry.parameters


@pytest.mark.parametrize("name", KNOWN)
def test_transformers_reads_what_is_written_and_knows_every_key(name, reports, tmp_path):
    transformers = pytest.importorskip("transformers")
    content = architecture(name, reports)
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    if theta := content.get("rope_theta"):
        assert config.rope_parameters["rope_theta"] == theta
        assert config.rope_parameters["rope_type"] == content.get("rope_scaling", {}).get("rope_type", "default")
    rewritten = {"rope_theta", "rope_scaling", "torch_dtype", "tie_word_embeddings", "pos_att_type"}
    for key in content.keys() - rewritten:
        assert getattr(config, key) == content[key], key
    # Read by the models, though no configuration has a default for them.
    read = {"position_buckets", "norm_rel_ebd", "share_att_key", "decoder_start_token_id"}
    defaults = type(config)()
    assert not [key for key in content.keys() - rewritten - read if not hasattr(defaults, key)]


def test_length_of_inputs_is_known(reports):
    lengths = {name: longest_input(architecture(name, reports)) for name in KNOWN}
    assert lengths["roberta-base"] == 512
    assert lengths["t5-small"] is None
    assert lengths["gpt2"] == 1024
    assert lengths["llama-3.1-8b"] == 131072


def test_null_is_a_key_of_its_own(reports):
    assert architecture("mistral-7b-v0.3", reports)["sliding_window"] is None
    assert architecture("mistral-7b-v0.1", reports)["sliding_window"] == 4096


def test_what_is_returned_may_be_changed(reports):
    architecture("llama-3.2-1b", reports)["rope_scaling"]["factor"] = 1
    assert architecture("llama-3.2-1b", reports)["rope_scaling"]["factor"] == 32


def test_folder(tmp_path, reports):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert architecture(str(tmp_path), reports) == CONFIG


@pytest.mark.parametrize("content", ["{", "[]"])
def test_folder_whose_file_is_damaged(tmp_path, reports, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json .*mend it"):
        architecture(str(tmp_path), reports)


def test_folder_without_the_file_and_folder_that_is_not_there(tmp_path, reports):
    with pytest.raises(UnavailableError, match=r"has no config\.json.*save_pretrained"):
        architecture(str(tmp_path), reports)
    with pytest.raises(UnavailableError, match="there is no folder"):
        architecture(str(tmp_path / "absent"), reports)


def test_unknown_name_names_the_nearest(reports):
    with pytest.raises(InputError, match=r"did you mean 'llama-3\.2-1b'\?.*known are .*gemma-2-2b"):
        architecture("llama-3-2-1b", reports)


def test_hub_gives_this_one_file_once(model, reports, monkeypatch):
    assert architecture("org/model", reports) == CONFIG
    assert fetched(model) == ["config.json"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    seen = len(model.requests)
    assert architecture("org/model", reports) == CONFIG
    assert len(model.requests) == seen


def test_it_stays_at_the_commit_that_was_first_seen(model, reports):
    assert architecture("org/model", reports) == CONFIG
    model.repositories["models/org/model"][SECOND] = MODEL | {"config.json": b'{"model_type": "gpt2"}'}
    assert architecture("org/model", reports) == CONFIG
    assert fetch("backbone", "org/model").source.endswith(SECOND)
    assert architecture("org/model", reports) == {"model_type": "gpt2"}


def test_backbone_in_the_cache_needs_no_network(model, reports, monkeypatch):
    asset = fetch("backbone", "org/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (asset.folder / "model.safetensors").unlink()  # only the one file is looked at
    assert architecture("org/model", reports) == CONFIG


def test_damaged_file_of_a_fetched_backbone_is_fetched_again_at_its_commit(model, reports):
    asset = fetch("backbone", "org/model")
    (asset.folder / "config.json").write_text('{"model_type": "evil"}')
    model.repositories["models/org/model"][SECOND] = MODEL | {"config.json": b'{"model_type": "gpt2"}'}
    assert architecture("org/model", reports) == CONFIG


def test_file_that_changed_at_the_same_commit_is_refused(model, reports):
    asset = fetch("backbone", "org/model")
    (asset.folder / "config.json").unlink()
    model.repositories["models/org/model"][FIRST]["config.json"] = b'{"model_type": "evil", "hidden_size": 8}'
    with pytest.raises(InputError, match="is not what it was"):
        architecture("org/model", reports)


def test_repository_without_the_file(a_hub, reports):
    a_hub.repositories["models/org/packed"] = {FIRST: {"a.gguf": b"g"}}
    with pytest.raises(UnavailableError, match=r"has no file 'config\.json'"):
        architecture("org/packed", reports)


def test_hub_out_of_reach(reports):
    with pytest.raises(UnavailableError, match=r"org/model: the model hub can't be reached.*give a folder"):
        architecture("org/model", reports)


def test_catalogue_name_without_facts_takes_the_first_source_that_has_them(model, reports, catalogue):
    catalogue(sources=({"hub": "org/absent"}, {"hub": "org/model"}))
    assert architecture("demo", reports) == CONFIG
    assert fetched(model) == ["config.json"]


def test_all_reasons_are_named_when_no_source_has_them(model, reports, catalogue):
    package = {"pypi": "demo==1.0", "file": "demo.whl", "sha256": "0" * 64, "members": {"a.gguf": "demo/a.gguf"}}
    catalogue(sources=({"hub": "org/absent"}, package))
    with pytest.raises(UnavailableError, match=r"demo: .*no 'org/absent'.*the package demo==1\.0 has no config\.json"):
        architecture("demo", reports)
