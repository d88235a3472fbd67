"""Runs as processes of their own: started, listened to, and turned into a record whatever becomes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from pewb import errors
from pewb.errors import InputError
from pewb.record import Record, Status, read_record, write_record
from pewb.reporting import Reporter
from pewb.runner.job import Job

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
"""Everything was fetched before: no library may ask the hub again."""


def run_in_process(job: Job, reporter: Reporter) -> tuple[Record, Path]:
    """Do `job` in a new process and return its record and where that is.

    Raises:
        InputError: the process found the input at fault; there is no record.
        KeyboardInterrupt: after the process wrote its `cancelled` record.
    """
    job.log_file.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | dict.fromkeys(_OFFLINE, "1") | {"TOKENIZERS_PARALLELISM": "false"}
    with TemporaryDirectory(prefix="pewb-") as folder, job.log_file.open("wb") as log:
        job_file = Path(folder) / "job.json"
        job_file.write_text(job.model_dump_json(), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "pewb.runner.worker", str(job_file)],
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=environment,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # an interrupt reaches it through us, once
        )
        interrupted = False
        record_path = None
        while True:
            try:
                record_path = _listen(process, reporter) or record_path
                process.wait()
                break
            except KeyboardInterrupt:
                if interrupted:
                    process.kill()
                else:
                    process.send_signal(signal.SIGINT)
                    reporter.notice("interrupted: the run is writing its record; once more ends it at once")
                interrupted = True
    if record_path is None:
        record_path = _record_of_death(job, process.returncode, interrupted)
    if interrupted:
        raise KeyboardInterrupt
    return read_record(record_path), record_path


def _listen(process: subprocess.Popen[str], reporter: Reporter) -> Path | None:
    """Pass the process's events on until it ends; return where its record is, if it wrote one."""
    assert process.stdout is not None
    path = None
    for line in process.stdout:
        event = json.loads(line)
        match event.pop("event"):
            case "progress":
                reporter.progress(**event)
            case "notice":
                reporter.notice(**event)
            case "record":
                path = Path(event["path"])
            case "input_error":
                process.wait()
                kind = getattr(errors, event["kind"], InputError)
                raise kind(event["text"])
    return path


def _record_of_death(job: Job, status: int, interrupted: bool) -> Path:
    """Write the record of a process that ended without writing one."""
    tail = job.log_file.read_text(encoding="utf-8", errors="replace")[-2000:] if job.log_file.exists() else ""
    kind: Status = "failed"
    reason = f"the run's process ended with status {status} and no record; its output is in {job.log_file}"
    if interrupted:
        kind, reason = "cancelled", "interrupted"
    elif status == -signal.SIGKILL:
        kind = "out_of_memory"
        reason = "the operating system killed the run's process, which it does when memory runs out"
    return write_record(job.record(kind, reason=reason, traceback=tail or None), job.results)
