"""Everything a recipe asks for, a process each: searches, runs over seeds, references; several at once if asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from pewb.errors import InputError, PewbError, RefusedError
from pewb.recipe import distinctions
from pewb.record import Record, Tuning, write_record
from pewb.reporting import Reporter, Step, StepState
from pewb.runner.found import Found
from pewb.runner.job import TrainingJob
from pewb.runner.prepare import Prepared, PreparedTask
from pewb.runner.process import Children, reserve, run_in_process

_REFRESH_SECONDS = 0.5
_REFERENCE_UNITS = 0.1


@dataclass
class _Row:
    """A row on its way: what its search chose, or why it can't be."""

    prepared: Prepared
    tuning: Tuning | None = None
    refusal: str | None = None
    failure: str | None = None


@dataclass
class _Task:
    """One thing to be done, and how it stands."""

    name: str
    work: Callable[[Reporter], tuple[StepState, str]]
    units: float
    """How long it takes, in epochs of training."""
    after: _Task | None = None
    state: StepState = "waiting"
    detail: str = ""
    started: float = 0.0
    seconds: float | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it can be started."""
        return self.state == "waiting" and (self.after is None or self.after.state not in ("waiting", "running"))

    def step(self) -> Step:
        """Return how it stands now."""
        seconds = time.monotonic() - self.started if self.state == "running" else self.seconds
        return Step(self.name, self.state, self.detail, seconds)


@dataclass
class Comparison:
    """A recipe's rows and what is done about them."""

    rows: Sequence[Prepared]
    results: Path
    reporter: Reporter
    children: Children = field(default_factory=Children)
    """The processes; they know how many there may be at once."""
    rerun: bool = False
    with_references: bool = True
    """Whether the task's classical predictors are judged too."""
    done: dict[int, tuple[Record, Path]] = field(default_factory=dict)
    """By the run's place in the recipe."""

    def __post_init__(self) -> None:
        self._found = Found(self.results, self.reporter, self.children)
        self._lock = threading.Lock()
        self._shown = 0.0
        self._tasks = [*self._runs(), *self._references()] if self.with_references else self._runs()
        self._is_one = sum(len(row.seeds) for row in self.rows) == 1 and not self.rows[0].cell.recipe.tune

    def run(self) -> list[tuple[Record, Path]]:
        """Do everything, and return the record of each run with its path, in the recipe's order.

        Raises:
            InputError: the recipe's only row does not serve.
            KeyboardInterrupt: after every process has written its record.
        """
        futures: dict[Future[None], _Task] = {}
        with ThreadPoolExecutor(self.children.num_jobs) as pool:
            while True:
                try:
                    if not self.children.interrupted:
                        for task in [one for one in self._tasks if one.is_ready][
                            : self.children.num_jobs - len(futures)
                        ]:
                            task.state, task.started = "running", time.monotonic()
                            futures[pool.submit(self._do, task)] = task
                        self._tell()
                    if not futures:
                        break
                    ended, _ = wait(futures, timeout=0.2, return_when=FIRST_COMPLETED)
                    for future in ended:
                        del futures[future]
                        error = future.exception()
                        if error and not self.children.interrupted:  # after an interrupt it may be one that it made
                            raise error
                except KeyboardInterrupt:
                    if self.children.interrupt():
                        self.reporter.notice("interrupted: what runs is writing its record; once more ends it at once")
                except BaseException:
                    self.children.interrupt()
                    raise
        self._tell()
        if self.children.interrupted:
            raise KeyboardInterrupt
        return [self.done[place] for place in sorted(self.done)]

    def _do(self, task: _Task) -> None:
        try:
            task.state, task.detail = task.work(_Following(task, self))
        except BaseException:
            task.state = "failed"
            raise
        finally:
            task.seconds = time.monotonic() - task.started
        self._tell()

    def _references(self) -> list[_Task]:
        tasks = {id(row.task): row.task for row in self.rows}
        return [
            _Task(f"{name}, {task.name}".replace("_", " "), self._reference(task, name), _REFERENCE_UNITS)
            for task in tasks.values()
            for name in task.table.references
        ]

    def _reference(self, task: PreparedTask, name: str) -> Callable[[Reporter], tuple[StepState, str]]:
        def work(reporter: Reporter) -> tuple[StepState, str]:
            job = task.reference(name)
            found = self._found.answer(job)
            if found:
                return _kept(*found)
            record, path = run_in_process(reserve(job), reporter, self.children)
            if record.status != "success" and self._is_one:  # no list of steps says so
                reporter.notice(f"{record.run}: {record.status}, {record.reason}")
            return _ended(record, path)

        return work

    def _runs(self) -> list[_Task]:
        tasks = []
        place = 0
        told_apart = distinctions([prepared.cell.recipe for prepared in self.rows])
        for prepared, distinction in zip(self.rows, told_apart, strict=True):
            name = _name(prepared, distinction)
            row = _Row(prepared, refusal=prepared.cell.refusal)
            recipe = prepared.cell.recipe
            search = None
            if recipe.tune and not row.refusal:
                epochs = recipe.tune.epochs or recipe.training.epochs
                search = _Task(f"{name}: search", self._search(row), recipe.tune.trials * epochs)
                tasks.append(search)
            for seed in prepared.seeds:
                units = recipe.training.epochs if not row.refusal else 0
                tasks.append(_Task(f"{name}, seed {seed}", self._run(row, seed, place), units, search))
                place += 1
        return tasks

    def _search(self, row: _Row) -> Callable[[Reporter], tuple[StepState, str]]:
        def work(reporter: Reporter) -> tuple[StepState, str]:
            from pewb.runner.tuning import tune

            row.tuning = self._found.tuning(row.prepared.study)
            if row.tuning:
                return "kept", _chosen(row.tuning)
            try:
                row.tuning = tune(row.prepared, reporter, self.children)
            except RefusedError as error:
                row.refusal = self._only_row_raises(error)
                return "refused", row.refusal
            except InputError as error:
                row.failure = self._only_row_raises(error)
                return "failed", row.failure
            except PewbError as error:
                row.failure = str(error)
                return "failed", row.failure
            return ("done", _chosen(row.tuning)) if row.tuning else ("cancelled", "")

        return work

    def _run(self, row: _Row, seed: int, place: int) -> Callable[[Reporter], tuple[StepState, str]]:
        def work(reporter: Reporter) -> tuple[StepState, str]:
            if self.children.interrupted:
                return "cancelled", ""
            job = self._noted(row.prepared.run(seed, row.tuning))
            found = None if self.rerun or row.refusal else self._found.answer(job)
            if found:
                record, path = found
                self.reporter.notice(f"{record.run}: run before, its record stands; --rerun runs it again")
                state = _kept(record, path)
            else:
                record, path = self._record_of(job, row, reporter)
                state = _ended(record, path)
            self._found.add(record, path)
            self.done[place] = record, path
            return state

        return work

    def _record_of(self, job: TrainingJob, row: _Row, reporter: Reporter) -> tuple[Record, Path]:
        """Run `job`, or write the record that says why it can't be."""
        if row.failure:
            return self._found.same(job, "failed", row.failure) or self._written(job, row, "failed", row.failure)
        if not row.refusal:
            reserved = reserve(job)
            self.reporter.notice(f"run {reserved.run}")
            try:
                return run_in_process(reserved, reporter, self.children)
            except RefusedError as error:
                row.refusal = self._only_row_raises(error)
            except InputError as error:
                return self._written(job, row, "failed", self._only_row_raises(error))
        return self._found.same(job, "refused", row.refusal) or self._written(job, row, "refused", row.refusal)

    def _written(self, job: TrainingJob, row: _Row, status: StepState, reason: str) -> tuple[Record, Path]:
        reserved = reserve(job)
        reserved.log_file.unlink()
        record = reserved.record(status, reason, data=row.prepared.task.facts)  # type: ignore[arg-type]
        return record, write_record(record, self.results)

    def _only_row_raises(self, error: PewbError) -> str:
        """Return the error as a row's reason; alone in a recipe it is the user's to mend."""
        if len(self.rows) == 1:
            raise error
        return str(error)

    def _noted(self, job: TrainingJob) -> TrainingJob:
        if self.children.num_jobs == 1:
            return job
        told = f"{self.children.num_jobs} runs at once: times are upper bounds"
        return job.model_copy(update={"notices": [*job.notices, told]})

    def _tell(self) -> None:
        if not self._is_one:
            with self._lock:
                self.reporter.standing([task.step() for task in self._tasks], self._seconds_left())

    def _tell_soon(self) -> None:
        if time.monotonic() - self._shown > _REFRESH_SECONDS:
            self._shown = time.monotonic()
            self._tell()

    def _seconds_left(self) -> float | None:
        """Return the time that is left, as long as a unit took so far; None before anything has taken time."""
        timed = [one for one in self._tasks if one.state in ("done", "failed") and one.seconds and one.units >= 1]
        if not timed:
            return None
        pace = sum(one.seconds or 0 for one in timed) / sum(one.units for one in timed)
        left = sum(one.units for one in self._tasks if one.state == "waiting") * pace
        running = [one for one in self._tasks if one.state == "running"]
        left += sum(max(0.0, one.units * pace - (time.monotonic() - one.started)) for one in running)
        return left / self.children.num_jobs


class _Following:
    """A reporter that keeps what one task says of itself, and passes it on under the task's name where there are several."""

    def __init__(self, task: _Task, comparison: Comparison) -> None:
        self._task = task
        self._comparison = comparison

    def notice(self, text: str) -> None:
        several = self._comparison.children.num_jobs > 1
        self._comparison.reporter.notice(f"{self._task.name}: {text}" if several else text)

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        share = f" {done / total:.0%}" if total else ""
        self._task.detail = f"{stage}{share}  {detail}".strip()
        several = self._comparison.children.num_jobs > 1
        name = f"{self._task.name}: {stage}" if several else stage
        self._comparison.reporter.progress(name, done, total, detail)
        self._comparison._tell_soon()

    def standing(self, steps: Sequence[Step], seconds_left: float | None) -> None:
        raise AssertionError("a task has no tasks of its own")


def _name(prepared: Prepared, distinction: str) -> str:
    recipe = prepared.cell.recipe
    storage = "" if recipe.quantization.kind == "none" else str(recipe.quantization)
    method = f"{recipe.strategy.kind} {recipe.strategy.describe()}".strip()
    return ", ".join(part for part in (method, storage, distinction) if part)


def _chosen(tuning: Tuning) -> str:
    values = ", ".join(f"{key.partition('.')[2]} {value}" for key, value in tuning.chosen.items())
    return f"{values}, the best of {len(tuning.trials)} trials"


def _kept(record: Record, path: Path) -> tuple[StepState, str]:
    return "kept", _ended(record, path)[1]


def _ended(record: Record, path: Path) -> tuple[StepState, str]:
    if record.status != "success":
        return record.status, (record.reason or "").splitlines()[0]
    name = record.main_metric or ""
    return "done", f"{name.replace('_', ' ')} {record.metrics[name].value:.3f}"
