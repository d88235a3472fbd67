"""The process of one job: reads it, does it, writes the record, and tells its parent what is going on.

Events go to standard output, one JSON document a line; whatever libraries print goes to standard error, which is a log.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pewb.errors import InputError
from pewb.quiet import quieten_libraries
from pewb.record import Record, Status, write_record
from pewb.reporting import Step
from pewb.runner.job import AnyJob, ReferenceJob, TrainingJob


class Events:
    """A reporter that writes events for the parent process."""

    def __init__(self, stream: Any) -> None:
        """Write to the text `stream`."""
        self._stream = stream
        self._is_interrupted = self._is_settled = False

    def interrupt(self, *_: Any) -> None:
        """Handle SIGINT: the job ends at its next event, for what is raised inside a finaliser is lost; at the second time at once."""
        if self._is_settled:
            return
        if self._is_interrupted:
            raise KeyboardInterrupt
        self._is_interrupted = True

    def settle(self) -> None:
        """Let nothing be interrupted from now on: what was measured is being written."""
        self._is_settled = True

    def send(self, event: str, **content: Any) -> None:
        """Write one event.

        Raises:
            KeyboardInterrupt: the job is to end.
        """
        if self._is_interrupted and not self._is_settled:
            raise KeyboardInterrupt
        self._stream.write(json.dumps({"event": event, **content}) + "\n")
        self._stream.flush()

    def notice(self, text: str) -> None:
        """Pass a notice on."""
        self.send("notice", text=text)

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        """Pass the progress on."""
        self.send("progress", stage=stage, done=done, total=total, detail=detail)

    def standing(self, steps: Sequence[Step], seconds_left: float | None) -> None:
        """Do nothing: a job is one thing."""


def main(job_file: str) -> int:
    """Do the job in `job_file`, with events on standard output and everything else on standard error."""
    events = Events(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    signal.signal(signal.SIGINT, events.interrupt)
    os.dup2(2, 1)
    job: AnyJob = TypeAdapter(AnyJob).validate_json(Path(job_file).read_text(encoding="utf-8"))
    return do(job, events)


def do(job: TrainingJob | ReferenceJob, events: Events) -> int:
    """Do `job` whatever becomes of it; 0 if there is a record or an answer, 2 if the input was at fault."""
    quieten_libraries()
    measured: dict[str, Any] = {}
    status: Status = "success"
    reason = None
    try:
        _work(job, events, measured)
    except InputError as error:
        events.settle()
        events.send("input_error", kind=type(error).__name__, text=str(error))
        return 2
    except (KeyboardInterrupt, BrokenPipeError):
        status, reason = "cancelled", "interrupted"
    except Exception as error:  # a run that fails becomes a record that says so
        from pewb.measurement.memory import is_out_of_memory

        status = "out_of_memory" if is_out_of_memory(error) else "failed"
        reason = f"{type(error).__name__}: {error}" if not type(error).__module__.startswith("pewb.") else str(error)
        measured["traceback"] = traceback.format_exc()
    events.settle()
    if isinstance(job, TrainingJob) and job.is_trial:
        if status != "cancelled":
            events.send("answer", value=measured.get("validation"), reason=reason)
        return 0
    fields = _finished(job, measured)
    record: Record = job.record(status, reason=reason, **fields)
    write_record(record, job.results)
    return 0


def _work(job: TrainingJob | ReferenceJob, events: Events, measured: dict[str, Any]) -> None:
    if isinstance(job, ReferenceJob):
        from pewb.runner.run_reference import run_reference

        run_reference(job, events, measured)
    else:
        from pewb.runner.run_training import run_training

        run_training(job, events, measured)


def _finished(job: TrainingJob | ReferenceJob, measured: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured so far as a record's fields."""
    if isinstance(job, ReferenceJob):
        return measured
    from pewb.runner.run_training import finished

    return finished(job, measured)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
