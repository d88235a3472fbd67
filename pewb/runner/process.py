"""Jobs as processes of their own: started, listened to, and turned into a record whatever becomes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any, Protocol

from pewb import errors
from pewb.errors import InputError, PewbError
from pewb.record import Record, Status, free_name, read_record, write_record
from pewb.reporting import Reporter
from pewb.runner.forkserver import ForkServer, fork_server
from pewb.runner.job import Job, TrainingJob, now

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
"""Everything was fetched before: no library may ask the hub again."""

WORKER = "pewb.runner.worker"
"""The module whose `main` does a job."""

_DEFAULTS = {"TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait sleep: spinning, they take the cores from each other when anything else runs (12 times slower, seen)."""

_ALLOCATOR = "PYTORCH_ALLOC_CONF", "expandable_segments:True"
"""A GPU's allocator grows its segments, so that batches of many lengths leave fewer holes; plans count on it."""
_ALLOCATORS = (_ALLOCATOR[0], "PYTORCH_CUDA_ALLOC_CONF")
"""Where a user may have said otherwise."""


class Process(Protocol):
    """A process that runs, or has run: `subprocess.Popen`, or a forked one."""

    @property
    def stdout(self) -> IO[str] | None:
        """What it writes."""
        ...

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        ...

    def wait(self) -> int:
        """Wait until it has ended, and return its exit status."""
        ...

    def send_signal(self, number: int, /) -> None:
        """Send a signal."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class Children:
    """The processes that run now; an interrupt is passed on to each of them, once."""

    def __init__(self, num_jobs: int = 1) -> None:
        """Share the CPU's cores among `num_jobs` processes; one alone takes what it finds."""
        self.num_jobs = num_jobs
        threads = {} if num_jobs == 1 else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num_jobs))}
        allocator = {} if any(name in os.environ for name in _ALLOCATORS) else dict([_ALLOCATOR])
        self._environment = _DEFAULTS | threads | allocator | os.environ | dict.fromkeys(_OFFLINE, "1")
        self._running: set[Process] = set()
        self._lock = threading.Lock()
        self._server: ForkServer | None = None
        self._device: tuple[str, str] | None = None
        self._asking = threading.Lock()
        self.interrupted = False
        self._reminder: threading.Timer | None = None

    def prepare(self) -> None:
        """Let what processes import be imported from now on, once for all of them."""
        self._server = self._server or fork_server(self._environment)

    def start(self, module: str, arguments: list[str], log: Any) -> Process:
        """Start a process that runs `main` of `module`; its standard output is read, its standard error goes to `log`."""
        self.prepare()
        forked = self._server.fork(module, arguments, log) if self._server else None
        process: Process = forked or _started(module, arguments, log, self._environment)
        with self._lock:
            self._running.add(process)
            if self.interrupted:
                process.send_signal(signal.SIGINT)
                self._remind_later()
        return process

    def ended(self, process: Process) -> None:
        """Forget a process; one that is still there is interrupted first, for nothing may go on unseen."""
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait()
        with self._lock:
            self._running.discard(process)

    def device(self) -> tuple[str, str]:
        """Return kind and name of the device that runs compute on, as a process of its own finds it, once.

        Raises:
            PewbError: it can't be found out.
        """
        with self._asking:
            self._device = self._device or self._asked_device()
        return self._device

    def _asked_device(self) -> tuple[str, str]:
        with TemporaryFile() as log:
            process = self.start("pewb.runner.device_here", [], log)
            assert process.stdout is not None
            try:
                answer, status = process.stdout.read(), process.wait()
            finally:
                self.ended(process)
            if status != 0:
                log.seek(0)
                raise PewbError(f"the device can't be found out: {log.read().decode(errors='replace').strip()[-300:]}")
        kind, name = json.loads(answer)
        return kind, name

    def interrupt(self) -> bool:
        """Interrupt every process; at the second time kill them. Return whether it was the first time."""
        with self._lock:
            first, self.interrupted = not self.interrupted, True
            self._remind_later()
            for process in self._running:
                if first:
                    process.send_signal(signal.SIGINT)
                else:
                    process.kill()
        return first

    def _remind(self) -> None:
        """Interrupt again what still runs some time after an interrupt: in a library's callback one may be lost."""
        with self._lock:
            self._reminder = None
            for process in self._running:
                process.send_signal(signal.SIGINT)
            if self._running:
                self._remind_later()

    def _remind_later(self) -> None:
        if self._reminder is None:
            self._reminder = threading.Timer(_REMIND_SECONDS, self._remind)
            self._reminder.daemon = True
            self._reminder.start()


_REMIND_SECONDS = 10


@dataclass
class Answer:
    """What a trial's process said: its values on the validation split, or why it failed."""

    validation: list[tuple[int, float]] = field(default_factory=list)
    value: float | None = None
    reason: str | None = None
    given_up: bool = False
    died: bool = False
    """Whether the process ended without an answer."""


def _started(module: str, arguments: list[str], log: Any, environment: dict[str, str]) -> Process:
    """Start a process in the ordinary way; `-P`: the user's current folder may hold an `evaluate.py` of its own."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=log,
        stdin=subprocess.DEVNULL,
        env=environment,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # an interrupt reaches it through us, once
    )


def reserve(job: Job) -> Job:
    """Return `job` as it starts now, under a name that no other run has; its log file, made here, holds that name.

    Raises:
        InputError: the results folder can't be written.
    """
    try:
        job.log_file.parent.mkdir(parents=True, exist_ok=True)
        while True:
            reserved = job.model_copy(update={"run": free_name(job.results, job.run), "started_at": now()})
            try:
                reserved.log_file.touch(exist_ok=False)
            except FileExistsError:  # another process was faster
                continue
            return reserved
    except OSError as error:
        raise InputError(f"{job.results}: the results can't be written here ({error.strerror}); name another") from None


def run_in_process(job: Job, reporter: Reporter, children: Children) -> tuple[Record, Path]:
    """Do `job`, which has its name from `reserve`, in a new process; return its record and where that is.

    After an interrupt it is the `cancelled` record that the process wrote.

    Raises:
        InputError: the process found the input at fault; there is no record.
    """
    known: dict[str, Any] = {}

    def heard(event: str, content: dict[str, Any]) -> None:
        if event == "known":
            known.update(content["facts"])

    status, _ = _followed(job, reporter, children, heard)
    path = job.results / f"{job.run}.json"
    if not path.exists():
        path = _record_of_death(job, status, children.interrupted, known)
    return read_record(path), path


def try_in_process(
    job: TrainingJob, reporter: Reporter, children: Children, give_up: Callable[[int, float], bool]
) -> Answer:
    """Do the trial `job` in a new process and return what it said; `give_up(evaluation, value)` may end it early.

    Raises:
        InputError: the process found the input at fault.
    """
    answer = Answer()

    def heard(event: str, content: dict[str, Any]) -> bool:
        if event == "validated" and not answer.given_up:  # what is given up stays so, however fast it goes on
            answer.validation.append((content["evaluation"], content["value"]))
            answer.given_up = give_up(content["evaluation"], content["value"])
        elif event == "answer":
            answer.value, answer.reason = content["value"], content["reason"]
        return answer.given_up

    job.log_file.parent.mkdir(parents=True, exist_ok=True)
    status, tail = _followed(job, reporter, children, heard)
    if answer.value is None and answer.reason is None and not answer.given_up:
        answer.died = True
        answer.reason = f"the trial's process ended {_ending(status)}: {tail.strip()[-300:]}"
    return answer


def _followed(
    job: Job, reporter: Reporter, children: Children, heard: Callable[[str, dict[str, Any]], bool | None]
) -> tuple[int, str]:
    """Start the process and listen until it ends; return its exit status and the end of its log.

    `heard` is told of the events that are not for the reporter, and ends the process by returning true.
    """
    with TemporaryDirectory(prefix="pewb-") as folder, job.log_file.open("wb") as log:
        job_file = Path(folder) / "job.json"
        job_file.write_text(job.model_dump_json(), encoding="utf-8")
        process = children.start(WORKER, [str(job_file)], log)
        try:
            _listen(process, job, reporter, heard)
            status = process.wait()
        finally:
            children.ended(process)
    return status, _tail(job)


def _tail(job: Job) -> str:
    return job.log_file.read_text(encoding="utf-8", errors="replace")[-2000:] if job.log_file.exists() else ""


def _listen(
    process: Process,
    job: Job,
    reporter: Reporter,
    heard: Callable[[str, dict[str, Any]], bool | None],
) -> None:
    """Pass the process's events on until it ends."""
    assert process.stdout is not None
    for line in process.stdout:
        try:
            event = json.loads(line)
        except ValueError:  # cut short, as the process was killed
            continue
        match event.pop("event"):
            case "progress":
                reporter.progress(**event)
            case "notice":
                reporter.notice(**event)
            case "input_error":
                process.wait()
                job.log_file.unlink(missing_ok=True)
                kind = getattr(errors, event["kind"], InputError)
                raise kind(event["text"])
            case other:
                if heard(other, event):
                    process.send_signal(signal.SIGINT)


def _record_of_death(job: Job, status: int, interrupted: bool, known: dict[str, Any]) -> Path:
    """Write the record of a process that ended without writing one."""
    kind: Status = "failed"
    log = job.log_file.relative_to(job.results).as_posix()
    reason = (
        f"the run's process ended {_ending(status)} and without a record; its output is in {log}, beside the record"
    )
    if interrupted:
        kind, reason = "cancelled", "interrupted"
    elif status == -signal.SIGKILL:
        kind = "out_of_memory"
        reason = "the operating system killed the run's process, which it does when memory runs out"
    try:
        return write_record(job.record(kind, reason, _tail(job) or None, **known), job.results)
    except OSError as error:
        raise PewbError(
            f"run {job.run}: {reason}; that could not be recorded in {job.results} ({error.strerror})"
        ) from None


def _ending(status: int) -> str:
    """Return how a process with this exit status ended, such as "with status 1" or "on SIGSEGV"."""
    try:
        return f"on {signal.Signals(-status).name}"
    except ValueError:
        return f"with status {status}"
