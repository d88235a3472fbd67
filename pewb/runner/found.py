"""What is in the results folder already: a run whose record is there is not run again."""

from __future__ import annotations

from pathlib import Path

from pewb.errors import InputError
from pewb.record import NUMERICS_VERSION, Record, Status, Tuning, identity_of, read_record
from pewb.reporting import Reporter
from pewb.runner.job import Job, TrainingJob
from pewb.runner.process import Children

_ANSWERS = ("success", "out_of_memory")
"""Outcomes that stand; what failed otherwise or was cancelled is tried again."""


class Found:
    """The records in a folder by the identity of what they ran, whatever their names."""

    def __init__(self, results: Path, reporter: Reporter, children: Children) -> None:
        """Read the records in `results`; a file that is none is told and passed over. `children` may be asked for the device."""
        self._results = results
        self._children = children
        self._reporter = reporter
        self._seen: set[Path] = set()
        self._records: dict[str, list[tuple[Record, Path]]] = {}
        self._tunings: dict[str, list[Record]] = {}
        self._look()

    def _look(self) -> None:
        """Read what has come since: the process of a run outlives a pewb that was killed, and may yet end well."""
        for path in sorted(set(self._results.glob("*.json")) - self._seen):
            try:
                self.add(read_record(path), path)
            except InputError as error:
                self._seen.add(path)
                self._reporter.notice(str(error))

    def add(self, record: Record, path: Path) -> None:
        """Take note of a record."""
        self._seen.add(path)
        if record.numerics_version == NUMERICS_VERSION:
            identity = identity_of(record.recipe_resolved, record.assets)
            self._records.setdefault(identity, []).append((record, path))
            if record.tuning:
                self._tunings.setdefault(record.tuning.study, []).append(record)

    def answer(self, job: Job) -> tuple[Record, Path] | None:
        """Return the record that answers `job`, with its path; of a training only one of this kind of device."""
        self._look()
        for record, path in self._records.get(job.identity, []):
            if record.status in _ANSWERS and (not isinstance(job, TrainingJob) or self._stands_here(record)):
                return record, path
        return None

    def same(self, job: Job, status: Status, reason: str) -> tuple[Record, Path] | None:
        """Return the record that says already that `job` has this `status` for this `reason`."""
        for record, path in self._records.get(job.identity, []):
            if (record.status, record.reason) == (status, reason):
                return record, path
        return None

    def tuning(self, study: str) -> Tuning | None:
        """Return what the search `study` chose on this kind of device, if a run has made use of it."""
        records = (record for record in self._tunings.get(study, []) if self._is_of_this_kind(record))
        return next((record.tuning for record in records), None)

    def _stands_here(self, record: Record) -> bool:
        """Return whether a record tells of this device too; that memory ran out says nothing of one with another name."""
        if record.status != "out_of_memory" or record.recipe_resolved["device"]["kind"] not in ("auto", self._here[0]):
            return self._is_of_this_kind(record)
        return record.device is not None and (record.device.kind, record.device.name) == self._here

    def _is_of_this_kind(self, record: Record) -> bool:
        asked = record.recipe_resolved["device"]["kind"]
        return asked != "auto" or (record.device is not None and record.device.kind == self._here[0])

    @property
    def _here(self) -> tuple[str, str]:
        return self._children.device()
