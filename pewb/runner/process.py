"""Runs as processes of their own: started, listened to, and turned into a record whatever becomes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pewb import errors
from pewb.errors import InputError, PewbError
from pewb.record import Record, Status, free_name, read_record, write_record
from pewb.reporting import Reporter
from pewb.runner.job import Job, now

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
"""Everything was fetched before: no library may ask the hub again."""

WORKER = (sys.executable, "-P", "-m", "pewb.runner.worker")
"""What is started for a run; `-P`: the user's current folder may hold an `evaluate.py` of its own."""

_DEFAULTS = {"TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait sleep: spinning, they take the cores from each other when anything else runs (12 times slower, seen)."""


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


def run_in_process(job: Job, reporter: Reporter) -> tuple[Record, Path]:
    """Do `job`, which has its name from `reserve`, in a new process; return its record and where that is.

    Raises:
        InputError: the process found the input at fault; there is no record.
        KeyboardInterrupt: after the process wrote its `cancelled` record.
    """
    with TemporaryDirectory(prefix="pewb-") as folder:
        job_file = Path(folder) / "job.json"
        job_file.write_text(job.model_dump_json(), encoding="utf-8")
        known: dict[str, Any] = {}
        status, interrupted = _followed(job, job_file, reporter, known)
    path = job.results / f"{job.run}.json"
    if not path.exists():
        path = _record_of_death(job, status, interrupted, known)
    if interrupted:
        raise KeyboardInterrupt
    return read_record(path), path


def _followed(job: Job, job_file: Path, reporter: Reporter, known: dict[str, Any]) -> tuple[int, bool]:
    """Start the process and listen until it ends; return its exit status, and whether the user interrupted it.

    `known` receives fields of the record that the process tells before it begins, lest it end without writing one.
    """
    environment = _DEFAULTS | os.environ | dict.fromkeys(_OFFLINE, "1")
    with job.log_file.open("wb") as log:
        process = subprocess.Popen(
            [*WORKER, str(job_file)],
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=environment,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # an interrupt reaches it through us, once
        )
    interrupted = False
    try:
        while True:
            try:
                _listen(process, job, reporter, known)
                return process.wait(), interrupted
            except KeyboardInterrupt:
                if interrupted:
                    process.kill()
                else:
                    interrupted = True
                    process.send_signal(signal.SIGINT)
                    reporter.notice("interrupted: the run is writing its record; once more ends it at once")
    finally:
        if process.poll() is None:  # we could not go on listening, and nothing may go on unseen
            process.send_signal(signal.SIGINT)
            process.wait()


def _listen(process: subprocess.Popen[str], job: Job, reporter: Reporter, known: dict[str, Any]) -> None:
    """Pass the process's events on until it ends."""
    assert process.stdout is not None
    for line in process.stdout:
        try:
            event = json.loads(line)
        except ValueError:  # cut short, as the process was killed or we were interrupted while reading
            continue
        match event.pop("event"):
            case "progress":
                reporter.progress(**event)
            case "notice":
                reporter.notice(**event)
            case "known":
                known.update(event["facts"])
            case "input_error":
                process.wait()
                job.log_file.unlink(missing_ok=True)
                kind = getattr(errors, event["kind"], InputError)
                raise kind(event["text"])


def _record_of_death(job: Job, status: int, interrupted: bool, known: dict[str, Any]) -> Path:
    """Write the record of a process that ended without writing one."""
    tail = job.log_file.read_text(encoding="utf-8", errors="replace")[-2000:] if job.log_file.exists() else ""
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
        return write_record(job.record(kind, reason, tail or None, **known), job.results)
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
