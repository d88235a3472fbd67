"""Evidence on the user's own data: short pilots of equal length, of which the better half goes on to longer ones."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pewb.choosing.answer import Entry, Pilot, Ranking
from pewb.choosing.written import chosen_recipe
from pewb.errors import PewbError
from pewb.recipe import Cell, LoadedRecipe, Recipe, Tune
from pewb.reporting import Named, Reporter, Step, StepState
from pewb.runner.prepare import Prepared, prepare
from pewb.runner.process import Answer, Children, try_in_process

LEAST_STEPS = 16
"""Optimizer steps of the shortest pilots."""

_PRUDENCE = 0.8
"""Share of the time that is planned for; rows differ in how long a step takes."""

Rounds = Callable[[int, int, float], int | None]
"""From a round's number (from 1), the number of rows in it and the seconds that a step of one took, to the steps of its
pilots; None: no more rounds."""


@dataclass(frozen=True)
class TimedRounds:
    """Each round has an equal part of the time, and so the fewer rows are left, the longer their pilots."""

    ends_at: float
    """By `time.monotonic`."""
    num_rounds: int

    def __call__(self, number: int, num_rows: int, seconds_per_step: float) -> int | None:
        """Return the steps of round `number`; the first is held whatever the time."""
        seconds = _PRUDENCE * (self.ends_at - time.monotonic()) / max(1, self.num_rounds - number + 1)
        steps = int(seconds / (num_rows * max(seconds_per_step, 1e-9)))
        if number == 1:
            return max(steps, LEAST_STEPS)
        return steps if steps >= LEAST_STEPS else None


@dataclass
class Probe:
    """Pilots by successive halving (Jamieson & Talwalkar 2016, figure 1), on the validation split alone.

    Each round trains the rows that are left from the start, all for as many steps, and keeps the better half; a pilot that
    fails is out. The pilots of a row that is left out in an earlier round are shorter, so its value compares with those of
    its own round only. No test example is seen, and nothing is recorded.
    """

    minutes: float | None = None
    """After which what runs is ended; None: `rounds` says when it is enough."""
    rounds: Rounds | None = None
    """Left out: as many as the minutes allow."""
    notices: list[str] = field(default_factory=list)

    def __call__(self, loaded: LoadedRecipe, ranking: Ranking, reporter: Reporter) -> dict[str, Pilot]:
        """Return the last pilot of each row that fits, by the row's name.

        Raises:
            InputError: the recipe has no data, or what it names does not serve.
        """
        fitting = [entry for entry in ranking.entries if entry.fits in ("yes", "borderline") and not entry.excluded]
        surely = [entry for entry in fitting if entry.fits == "yes"] or fitting
        if not surely:
            return {}
        with TemporaryDirectory(prefix="pewb-pilots-") as folder:
            cells = [Cell(_short(entry)) for entry in surely]
            rows = prepare(replace(loaded, cells=cells), Path(folder), reporter)
            named = {entry.candidate.name: row for entry, row in zip(surely, rows, strict=True)}
            return self._halved(named, reporter)

    def _halved(self, left: dict[str, Prepared], reporter: Reporter) -> dict[str, Pilot]:
        found: dict[str, Pilot] = {}
        children = Children()
        seconds = 60 * (self.minutes or 0.0)
        ends_at = time.monotonic() + seconds
        timer = threading.Timer(seconds, children.interrupt)
        timer.daemon = True
        try:
            if self.minutes is not None:
                timer.start()
            rounds = self.rounds or TimedRounds(ends_at, max(1, math.ceil(math.log2(len(left)))))
            seconds_per_step = 0.0 if self.rounds else self._paced(left, children, reporter)
            number = 0
            while left and (len(left) > 1 or number == 0):
                number += 1
                steps = rounds(number, len(left), seconds_per_step)
                if steps is None:
                    break
                started = time.monotonic()
                pilots = self._round(left, number, steps, children, reporter)
                seconds_per_step = (time.monotonic() - started) / (steps * len(left))
                if children.interrupted:
                    self.notices.append(f"the pilots' time was up in round {number}, which does not count")
                    break
                found |= pilots
                best = sorted(pilots, key=lambda name: pilots[name].merit, reverse=True)
                left = {name: left[name] for name in best[: (len(best) + 1) // 2]}
        finally:
            timer.cancel()
        if not found:
            self.notices.append("no round of pilots came to its end; give --probe more minutes")
        return found

    def _paced(self, rows: dict[str, Prepared], children: Children, reporter: Reporter) -> float:
        """Return the seconds that a step takes in the shortest of pilots, loading included, which is for this alone."""
        name, row = next(iter(rows.items()))
        started = time.monotonic()
        self._pilot(row, 0, LEAST_STEPS, children, Named(f"pilot of {name}, to see how long a step takes", reporter))
        return (time.monotonic() - started) / LEAST_STEPS

    def _round(
        self, left: dict[str, Prepared], number: int, steps: int, children: Children, reporter: Reporter
    ) -> dict[str, Pilot]:
        found: dict[str, Pilot] = {}
        states = {name: Step(name) for name in left}
        for name, row in left.items():
            states[name] = Step(name, "running", f"pilot of {steps} steps, round {number}")
            reporter.standing(list(states.values()), None)
            started = time.monotonic()
            answer = self._pilot(row, number, steps, children, Named(f"pilot of {name}, {steps} steps", reporter))
            if children.interrupted:
                break
            state: StepState = "failed"
            detail = (answer.reason or "").splitlines()[0] if answer.reason else ""
            if answer.value is None:
                self.notices.append(f"{name}: its pilot failed: {detail}")
            else:
                table = row.task.table
                found[name] = Pilot(answer.value, table.main_metric, table.greater_is_better, steps, number)
                state, detail = "done", f"{table.main_metric.replace('_', ' ')} {answer.value:.3f}"
            states[name] = Step(name, state, detail, time.monotonic() - started)
        reporter.standing(list(states.values()), None)
        return found

    def _pilot(self, row: Prepared, number: int, steps: int, children: Children, reporter: Reporter) -> Answer:
        job = row.trial({"training.max_steps": steps}, number)
        try:
            return try_in_process(job, reporter, children, lambda _evaluation, _value: False)
        except PewbError as error:
            return Answer(reason=str(error))


def _short(entry: Entry) -> Recipe:
    """Return the recipe of a row's pilots: at its setting, with one evaluation at the end."""
    recipe = chosen_recipe(replace(entry, candidate=replace(entry.candidate, support=None)))
    training = recipe.training.model_copy(update={"patience": None})
    return recipe.model_copy(update={"tune": Tune(), "training": training})
