import pytest

from pewb.assets import cached, digest_file, fetch, fetch_first
from pewb.errors import InputError, UnavailableError


def folder_with(tmp_path, *names):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def test_backbone_of_the_users_own(tmp_path):
    folder = folder_with(tmp_path, "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                         "model.safetensors.index.json", "vocab.txt", "optimizer.pt", "tokenizer.py")  # fmt: skip
    asset = fetch("backbone", str(folder))
    assert asset.source == f"folder:{folder}"
    assert asset.folder == folder
    assert asset.digests["vocab.txt"] == digest_file(folder / "vocab.txt")
    assert len(asset.digests) == 5
    assert cached("backbone", str(folder))


def test_relative_folder_keeps_its_name(tmp_path, monkeypatch):
    folder_with(tmp_path, "a.gguf")
    monkeypatch.chdir(tmp_path)
    for given in ("mine", "./mine"):
        asset = fetch("backbone", given)
        assert asset.source == f"folder:{given}"
        assert asset.folder == tmp_path / "mine"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json", "pytorch_model.bin"], "pickle"),
        (["config.json"], "no weights"),
        (["model.safetensors"], "no config.json"),
        (["a.gguf", "b.gguf"], "2 GGUF files"),
        (["adapter_config.json", "adapter_model.safetensors"], "holds an adapter"),
    ],
)
def test_folder_that_is_no_backbone_is_refused(tmp_path, names, message):
    with pytest.raises(UnavailableError, match=message):
        fetch("backbone", str(folder_with(tmp_path, *names)))


def test_folder_that_is_not_there():
    with pytest.raises(UnavailableError, match=r"there is no folder './absent'"):
        fetch("backbone", "./absent")
    assert not cached("backbone", "./absent")


@pytest.mark.parametrize(
    ("kind", "wrong", "right"), [("backbone", "minilm-6", "minilm-l6"), ("task", "movie_snippets", "movie-snippets")]
)
def test_unknown_name_suggests_the_nearest(kind, wrong, right):
    with pytest.raises(InputError, match=f"did you mean '{right}'.*known are"):
        fetch(kind, wrong)


def test_unknown_name_in_a_list_is_told_though_its_turn_would_not_come(tmp_path):
    folder = folder_with(tmp_path, "a.csv")
    with pytest.raises(InputError, match="did you mean 'sst2'"):
        fetch_first("task", [str(folder), "sst22"])


@pytest.mark.parametrize("reference", ["", "a b", "a/b/c", "x@y"])
def test_what_is_no_reference(reference):
    with pytest.raises(InputError, match="known are"):
        fetch("backbone", reference)


def test_none_of_a_list():
    with pytest.raises(UnavailableError, match=r"no backbone can be had: ./one: .*; ./two: "):
        fetch_first("backbone", ["./one", "./two"])


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEWB_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="PEWB_CACHE"):
        fetch("task", "movie-snippets")
