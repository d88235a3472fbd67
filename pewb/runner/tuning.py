"""The search for a row's hyper-parameters on the validation split: an Optuna study, stored, so that it can be resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pewb.errors import TrainingError
from pewb.recipe import Tune
from pewb.record import Trial, Tuning
from pewb.reporting import Named, Reporter
from pewb.runner.prepare import Prepared
from pewb.runner.process import Children, try_in_process

RATE = "training.learning_rate"


def tune(prepared: Prepared, reporter: Reporter, children: Children) -> Tuning | None:
    """Search the row's hyper-parameters and return what was tried and chosen; None after an interrupt.

    What comes next depends only on the trials that have ended, so a study that is resumed ends as one that never stopped.
    Where another pewb does this search, its end is waited for: what it has chosen is there then.

    Raises:
        InputError: the recipe can't be run, which the first trial found out.
        TrainingError: no trial ended well, a trial's process died twice, or the stored search can't be used.
    """
    recipe = prepared.cell.recipe
    section, default = recipe.tune, recipe.training.learning_rate
    assert section is not None and default is not None
    # What a GPU chooses is not what a CPU does; a kind that the recipe names is in the study's identity already.
    kind = children.device()[0] if recipe.device.kind == "auto" else "cpu"
    apart = "" if kind == "cpu" else f"-{kind}"
    path = prepared.task.results / "studies" / f"{prepared.study[:16]}{apart}.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _held(path, reporter, children) as is_ours:
            return _searched(prepared, section, default, path, reporter, children) if is_ours else None
    except _storage_errors() as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{path} can't be used ({reason}); remove it, and the search begins anew") from None


@contextmanager
def _held(path: Path, reporter: Reporter, children: Children) -> Iterator[bool]:
    """Hold the study in `path` for us alone; false after an interrupt."""
    lock = FileLock(f"{path}.lock")
    told = False
    while not children.interrupted:
        try:
            lock.acquire(timeout=_WAIT_SECONDS)
        except Timeout:
            if not told:
                reporter.notice(f"{path} is in use: another pewb does this search; waiting for its end")
            told = True
            continue
        try:
            yield True
        finally:
            lock.release()
        return
    yield False


_WAIT_SECONDS = 0.5


def _storage_errors() -> tuple[type[Exception], ...]:
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    return OptunaError, SQLAlchemyError


def _searched(
    prepared: Prepared, section: Tune, default: float, path: Path, reporter: Reporter, children: Children
) -> Tuning | None:
    study = _opened(path, section, prepared.task.table.greater_is_better)
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name == "RUNNING":  # its process died with the one that had started it
            study.tell(trial.number, state=_state("FAIL"))
    sign = _sign(prepared)
    while not children.interrupted:
        ended = _ended(study)
        tried = [(one.params[RATE], _merit(one, sign)) for one in ended if _stage(one) == "rate"]
        rate = next_rate(section, default, tried)
        if rate is not None:
            _try(study, "rate", {RATE: rate}, prepared, len(ended), reporter, children)
        elif sum(_stage(one) == "search" for one in ended) < section.trials - section.num_rates:
            _try(study, "search", None, prepared, len(ended), reporter, children)
        elif any(one.state.name == "COMPLETE" for one in ended):
            return _chosen(prepared, default, ended)
        else:
            reasons = [one.user_attrs["reason"] for one in ended if "reason" in one.user_attrs]
            raise TrainingError(
                f"none of the {len(ended)} trials ended well; the last: {reasons[-1]} (to search anew, remove {path})"
            )
    return None


def rates_around(default: float, decades: float, count: int) -> list[float]:
    """Return `count` rates, evenly spread on a logarithmic scale over `decades` around `default`, the middle ones first."""
    exponents = [decades * (number / (count - 1) - 0.5) for number in range(count)]
    exponents.sort(key=lambda one: (abs(round(one, 9)), one))
    rates: list[float] = []
    for digits in (2, 4, 8):
        rates = [_rounded(default * 10**exponent, digits) for exponent in exponents]
        if len(set(rates)) == count:
            break
    return rates


def next_rate(section: Tune, default: float, tried: Sequence[tuple[float, float | None]]) -> float | None:
    """Return the rate to try next: one of those around the default, then beyond an edge that is the best; or None.

    Args:
        section: the recipe's.
        default: the rate in the middle.
        tried: rates, and how good each was on validation, more being better; None: it failed or was given up.
    """
    planned = rates_around(default, section.decades, section.num_rates)
    done = dict(tried)
    if missing := [rate for rate in planned if rate not in done]:
        return missing[0]
    best = _best_rate(done, default)
    if best is None or len(done) - len(planned) >= section.extensions:
        return None
    step = 10 ** (section.decades / (section.num_rates - 1))
    if best == max(done):
        return _rounded(best * step)
    return _rounded(best / step) if best == min(done) else None


def _best_rate(done: dict[float, float | None], default: float) -> float | None:
    known = {rate: value for rate, value in done.items() if value is not None}
    return max(known, key=lambda rate: (known[rate], -abs(math.log(rate / default)), -rate)) if known else None


def _rounded(rate: float, digits: int = 2) -> float:
    return float(f"{rate:.{digits}g}")


def _opened(path: Path, section: Tune, greater_is_better: bool) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Two trials must have ended before a third is given up, and none is at its first evaluation.
    pruner = (
        optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2)
        if section.prune
        else optuna.pruners.NopPruner()
    )
    return optuna.create_study(
        storage=f"sqlite:///{path}",
        study_name="search",
        direction="maximize" if greater_is_better else "minimize",
        load_if_exists=True,
        pruner=pruner,
    )


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _ended(study: Any) -> list[Any]:
    """Return the trials that count: those that an interrupt ended are tried again."""
    trials = study.get_trials(deepcopy=False)
    return [one for one in trials if one.state.name in ("COMPLETE", "PRUNED") or "reason" in one.user_attrs]


def _stage(trial: Any) -> str:
    return str(trial.user_attrs["stage"])


def _sign(prepared: Prepared) -> int:
    return 1 if prepared.task.table.greater_is_better else -1


def _merit(trial: Any, sign: int) -> float | None:
    return sign * trial.value if trial.state.name == "COMPLETE" else None


def _values(trial: Any) -> dict[str, Any]:
    return {key: value if key == RATE else json.loads(value) for key, value in trial.params.items()}


def _try(
    study: Any,
    stage: str,
    fixed: dict[str, float] | None,
    prepared: Prepared,
    number: int,
    reporter: Reporter,
    children: Children,
) -> None:
    """Do one trial: with the values `fixed`, or else with those that the sampler proposes."""
    from optuna.samplers import TPESampler

    section = prepared.cell.recipe.tune
    assert section is not None
    study.sampler = TPESampler(seed=number, n_startup_trials=section.num_rates)
    if fixed and not [one for one in study.get_trials(deepcopy=False) if one.state.name == "WAITING"]:
        study.enqueue_trial(fixed)
    trial = study.ask()
    trial.set_user_attr("stage", stage)
    if fixed:
        trial.suggest_float(RATE, fixed[RATE], fixed[RATE], log=True)
    else:
        rates = [one.params[RATE] for one in _ended(study)]
        trial.suggest_float(RATE, min(rates), max(rates), log=True)
        for key, choices in section.search.items():
            trial.suggest_categorical(key, [json.dumps(choice) for choice in choices])

    values = _values(trial)
    job = prepared.trial(values, trial.number)
    planned = job.recipe.training.epochs * job.recipe.training.evaluations_per_epoch

    def give_up(evaluation: int, value: float) -> bool:
        trial.report(value, evaluation)
        return evaluation < planned and bool(trial.should_prune())

    named = Named(f"trial {number + 1}, {_shown(values)}", reporter)
    answer = try_in_process(job, named, children, give_up)
    if answer.died and not children.interrupted:  # which says nothing of what it tried
        answer = try_in_process(job, named, children, give_up)
    if children.interrupted:
        study.tell(trial, state=_state("FAIL"))
    elif answer.given_up:
        study.tell(trial, state=_state("PRUNED"))
    elif answer.died:
        study.tell(trial, state=_state("FAIL"))
        raise TrainingError(answer.reason or "")
    elif answer.value is None:
        trial.set_user_attr("reason", answer.reason)
        study.tell(trial, state=_state("FAIL"))
    else:
        study.tell(trial, answer.value)


def _shown(values: dict[str, Any]) -> str:
    others = [f"{key} {value}" for key, value in values.items() if key != RATE]
    return ", ".join([f"lr {values[RATE]:g}", *others])


def _chosen(prepared: Prepared, default: float, ended: list[Any]) -> Tuning:
    complete = [one for one in ended if one.state.name == "COMPLETE"]
    sign = _sign(prepared)
    best = max(complete, key=lambda one: (sign * one.value, -abs(math.log(one.params[RATE] / default)), -one.number))
    rates = [one.params[RATE] for one in ended if _stage(one) == "rate"]
    notices = []
    if best.params[RATE] in (min(rates), max(rates)):
        which = "largest" if best.params[RATE] == max(rates) else "smallest"
        notices = [f"the best learning rate, {best.params[RATE]:g}, is the {which} that was tried"]
    trials = [
        Trial(
            values=_values(one),
            state={"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[one.state.name],  # type: ignore[arg-type]
            validation=_last_value(one),
        )
        for one in ended
    ]
    return Tuning(study=prepared.study, seed=prepared.seeds[0], trials=trials, chosen=_values(best), notices=notices)


def _last_value(trial: Any) -> float | None:
    if trial.state.name == "COMPLETE":
        return float(trial.value)
    values = trial.intermediate_values
    return float(values[max(values)]) if values and trial.state.name == "PRUNED" else None
