"""A process that has imported everything and touched no device: jobs are forked from it, so that none waits for imports.

A forked process is a fresh one in all that is measured: it has its own memory, statistics and random state, and finds its
device itself. Only where forking is sound (Linux, no device touched by the imports) does the server serve; elsewhere its
channel is closed, and who asks starts a process in the ordinary way.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

_IMPORTED = (
    "datasets",
    "accelerate",
    "pewb.assembly",
    "pewb.prediction",
    "pewb.training.loop",
    "pewb.planner.prediction",
    "pewb.runner.worker",
)
_IMPORTED_WITHOUT_GPU = ("peft",)
"""Imports bitsandbytes, which asks an NVIDIA GPU for its capability: none could be used after a fork."""

_LONGEST_REQUEST = 65536
_LOOKS_SECONDS = 0.1

UNKNOWN = 255
"""The exit status of a process whose server is gone."""


class Forked:
    """A process that the server has forked, to be used as `subprocess.Popen` is.

    If the server is gone nobody tells how the process ends: its exit status is `UNKNOWN` then.
    """

    def __init__(self, pid: int, output: int, status: int) -> None:
        """Know it by its number; read what it writes from `output`, and how it ended from `status`."""
        self.pid = pid
        self.stdout = os.fdopen(output, encoding="utf-8")
        self._status = status
        self._returncode: int | None = None
        self._is_orphan = False
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, status)

    def wait(self) -> int:
        """Wait until it has ended; return its exit status, which is a signal's number below zero."""
        while True:
            select.select([self._status], [], [])
            status = self._learned()
            if status is not None:
                return status
            time.sleep(_LOOKS_SECONDS)

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        if self._returncode is None and not select.select([self._status], [], [], 0)[0]:
            return None
        return self._learned()

    def _learned(self) -> int | None:
        """Read what there is to be read of its end, or, if nobody tells any more, look whether it is there."""
        with self._lock:
            if self._returncode is None and not self._is_orphan:
                told = os.read(self._status, 16)
                self._returncode = int(told) if told else None
                self._is_orphan = not told
            if self._returncode is None and not _runs(self.pid):
                self._returncode = UNKNOWN
            return self._returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The server, from outside; it begins at once to import, and ends with this object."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start the server with the `environment` that every process forked from it has."""
        self._channel, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno())]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**environment, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},  # to ask for a GPU must not touch it
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        self._lock = threading.Lock()
        self._end = weakref.finalize(self, _ended, process, self._channel)

    def fork(self, module: str, arguments: Sequence[str], log: Any) -> Forked | None:
        """Return a new process that runs `main(*arguments)` of `module`; None: the server does not serve.

        Its standard error goes to the file `log`.
        """
        output, their_output = os.pipe()
        status, their_status = os.pipe()
        request = json.dumps([module, *arguments]).encode()
        with self._lock:
            try:
                socket.send_fds(self._channel, [request], [their_output, log.fileno(), their_status])
                answer = self._channel.recv(16)
            except OSError:
                answer = b""
        os.close(their_output)
        os.close(their_status)
        if answer:
            return Forked(int(answer), output, status)
        os.close(output)
        os.close(status)
        return None

    def close(self) -> None:
        """End the server; what was forked from it goes on."""
        self._end()


def _runs(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _ended(process: subprocess.Popen[bytes], channel: socket.socket) -> None:
    channel.close()
    process.kill()
    process.wait()


def fork_server(environment: Mapping[str, str]) -> ForkServer | None:
    """Return a server, or None where processes that have imported much can't be forked soundly."""
    return ForkServer(environment) if sys.platform == "linux" else None


def main(channel: str) -> int:
    """Import, serve the socket with the number `channel` until it is closed, and, in a forked process, do what was asked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # it is for the forked processes, which let it through
    gc.disable()  # nothing of what is imported is garbage: to look for some takes a quarter of the time
    torch = import_module("torch")
    for name in _IMPORTED if torch.cuda.is_available() else (*_IMPORTED, *_IMPORTED_WITHOUT_GPU):
        import_module(name)
    if not _forks_soundly():
        return 0
    gc.enable()
    gc.freeze()  # what was imported stays: no collection in a forked process looks through it, or copies its pages
    asked = _serve(socket.socket(fileno=int(channel)))
    if asked is None:
        return 0
    module, *arguments = asked
    status: int = import_module(module).main(*arguments)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # to take apart all that was imported would need longer than many a job


def _forks_soundly() -> bool:
    """Return whether a forked process can use a GPU: not if the imports have touched one."""
    import torch

    pid = os.fork()
    if pid == 0:
        os._exit(int(torch.cuda._is_in_bad_fork()))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _serve(channel: socket.socket) -> list[str] | None:
    """Fork for each request; return what was asked in the forked process, and None in the server when nobody is left."""
    wakes, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    statuses: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([channel.fileno(), wakes], [], [])
        if wakes in ready:
            os.read(wakes, 1024)
            _reap(statuses)
        if channel.fileno() not in ready:
            continue
        request, descriptors, _, _ = socket.recv_fds(channel, _LONGEST_REQUEST, 3)
        if not request:
            return None
        output, log, status = descriptors
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            os.setsid()
            os.dup2(output, 1)
            os.dup2(log, 2)
            for descriptor in (output, log, status, wakes, woken, *statuses.values()):
                os.close(descriptor)
            channel.close()
            asked: list[str] = json.loads(request)
            return asked
        statuses[pid] = status
        os.close(output)
        os.close(log)
        channel.send(str(pid).encode())


def _reap(statuses: dict[int, int]) -> None:
    """Tell of each process that has ended how it did."""
    for pid, status in list(statuses.items()):
        ended, code = os.waitpid(pid, os.WNOHANG)
        if ended:
            os.write(status, str(os.waitstatus_to_exitcode(code)).encode())
            os.close(status)
            del statuses[pid]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
