"""Processes forked from one that has imported everything: fresh in all that counts, and ended as any other is."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from pewb.runner import process
from pewb.runner.forkserver import UNKNOWN, ForkServer
from pewb.runner.process import Children

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks soundly after imports")

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
FORKED = "tests.runner.forked"


@pytest.fixture(scope="module")
def server():
    server = ForkServer(ENVIRONMENT)
    yield server
    server.close()


@pytest.fixture
def log():
    with TemporaryFile() as file:
        yield file


def test_a_forked_process_is_fresh_but_for_its_imports(server, tmp_path):
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    several = []
    for path in logs:
        with path.open("wb") as log:
            several.append(server.fork(FORKED, ["tell"], log))
    told = [json.loads(one.stdout.read()) for one in several]
    assert [one.wait() for one in several] == [0, 0, 0]
    for one in told:
        assert one["imported"], "nothing is imported again"
        assert one["threads"] == 1, "no thread was lost in the fork"
        assert one["is_leader"], "an interrupt of the terminal reaches it through its parent alone"
        assert (one["cuda"], one["bad_fork"]) == (False, False), "no device was touched before"
        assert one["product"] == 300**3
    assert len({one["descriptors"] for one in told}) == 1, "the others' pipes are closed in it"
    assert [path.read_text() for path in logs] == ["to the log\n"] * 3


@pytest.mark.parametrize(("asked", "status"), [(["end", "0"], 0), (["end", "3"], 3), (["die"], -signal.SIGSEGV)])
def test_its_exit_status_is_told(server, log, asked, status):
    forked = server.fork(FORKED, asked, log)
    assert forked.wait() == status
    assert forked.poll() == status
    forked.send_signal(signal.SIGINT)  # to nobody


def test_an_interrupt_that_comes_at_once_reaches_it(server, log):
    forked = server.fork(FORKED, ["sleep"], log)
    forked.send_signal(signal.SIGINT)
    assert forked.wait() in (-signal.SIGINT, 1, 7), "before what it does, on the way to it, or within"


def test_it_is_interrupted_and_killed(server, log):
    forked, other = (server.fork(FORKED, ["sleep"], log) for _ in range(2))
    assert [forked.stdout.readline(), other.stdout.readline()] == ["sleeps\n"] * 2
    assert forked.poll() is None
    forked.send_signal(signal.SIGINT)
    assert (forked.stdout.read(), forked.wait()) == ("interrupted\n", 7)
    other.kill()
    assert other.wait() == -signal.SIGKILL


def test_a_process_whose_server_is_gone_is_followed_on(log):
    server = ForkServer(ENVIRONMENT)
    forked, other = (server.fork(FORKED, ["sleep"], log) for _ in range(2))
    assert [forked.stdout.readline(), other.stdout.readline()] == ["sleeps\n"] * 2
    server.close()
    assert (forked.poll(), other.poll()) == (None, None)
    forked.send_signal(signal.SIGINT)
    other.kill()
    assert forked.stdout.read() == "interrupted\n"
    assert (forked.wait(), other.wait(), forked.poll()) == (UNKNOWN,) * 3


def test_it_may_be_asked_and_signalled_while_it_ends(server, log):
    for _ in range(20):
        forked = server.fork(FORKED, ["end", "3"], log)
        waiting = threading.Thread(target=forked.wait)
        waiting.start()
        while forked.poll() is None:
            forked.send_signal(0)
        waiting.join()
        assert forked.wait() == 3


def test_where_no_server_serves_a_process_is_started(monkeypatch, log):
    class Broken(ForkServer):
        def fork(self, module, arguments, log):
            self.close()
            return super().fork(module, arguments, log)

    monkeypatch.setattr(process, "fork_server", Broken)
    monkeypatch.setattr(process, "_DEFAULTS", {"PYTHONPATH": ENVIRONMENT["PYTHONPATH"]})
    children = Children()
    started = children.start(FORKED, ["end", "3"], log)
    assert started.wait() == 3
    assert isinstance(started, subprocess.Popen)


def test_the_device_is_asked_of_a_process():
    kind, name = Children().device()
    assert kind in ("cpu", "cuda", "xpu", "mps")
    assert name
