"""What fits × what was measured: a ranking, and the cheapest row that can't be told apart from the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any

from pewb.choosing.answer import Budgets, Candidate, Entry, Ranking
from pewb.choosing.evidence import Evidence
from pewb.choosing.reasons import TIME_UNKNOWN, reason_for_nothing, reason_of_choice, reason_of_pilots
from pewb.leaderboard.outcomes import has_collapsed
from pewb.leaderboard.verdicts import contenders, standings
from pewb.tasks import greater_is_better
from pewb.units import format_bytes, format_count, format_seconds


def ranked(
    candidates: Sequence[Candidate], title: str, memory_bytes: int, limit: int, evidence: Evidence, budgets: Budgets
) -> Ranking:
    """Return the candidates within `limit` bytes, and the choice among them."""
    entries = [_entry(candidate, limit, budgets) for candidate in candidates]
    pool = [entry for entry in entries if entry.fits in ("yes", "borderline") and not entry.excluded]
    piloted = any(entry.candidate.pilot for entry in pool)
    backed = [entry for entry in pool if (entry.candidate.pilot if piloted else entry.value is not None)]
    able = [entry for entry in backed if entry.fits == "yes"] or backed
    title_of_limit = f"{format_bytes(memory_bytes)}"
    if piloted:
        best = min(able, key=lambda entry: (_pilot_order(entry), _cost(entry)))
        choice, reason = best, reason_of_pilots(best, able, title_of_limit)
    elif able:
        able = _against_best(able, evidence)
        by_candidate = {id(entry.candidate): entry for entry in able}
        entries = [by_candidate.get(id(entry.candidate), entry) for entry in entries]
        alike = [entry for entry in able if entry.standing is None or entry.standing.place in _ALIKE]
        doubts = {id(entry): doubt for entry in alike if (doubt := _doubt(entry, able, evidence))}
        choice = _cheapest([entry for entry in alike if id(entry) not in doubts] or alike)
        passed_over = [(entry, doubts[id(entry)]) for entry in alike if _cost(entry) < _cost(choice)]
        reason = reason_of_choice(choice, able, passed_over, title_of_limit)
    else:
        choice, reason = None, reason_for_nothing(entries, sorted(pool, key=_cost), title_of_limit)
    entries.sort(key=lambda entry: _order(entry, piloted))
    return Ranking(title, memory_bytes, limit, entries, choice, reason)


_ALIKE = ("best", "alike")


def _entry(candidate: Candidate, limit: int, budgets: Budgets) -> Entry:
    settings = candidate.needs.settings.get(limit, [])
    return Entry(
        candidate,
        settings[0] if settings else None,
        tuple(settings[1:]),
        _excluded(candidate, budgets),
    )


def _excluded(candidate: Candidate, budgets: Budgets) -> str | None:
    parameters, support = candidate.needs.parameters, candidate.support
    most, longest = budgets.max_trainable, budgets.max_train_seconds
    if most is not None and parameters and parameters.trainable > most:
        return f"trains {format_count(parameters.trainable)} parameters, more than {format_count(most)}"
    if longest is None:
        return None
    seconds = support.row.time.train_seconds if support else None
    if seconds is None:
        return None if budgets.unmeasured_too else TIME_UNKNOWN
    if support and seconds > longest:
        where = ", ".join(support.row.device_names)
        return f"trained for {format_seconds(seconds)} on {where}, more than {format_seconds(longest)}"
    return None


def _against_best(able: list[Entry], evidence: Evidence) -> list[Entry]:
    """Return the entries, best first, each with how it stands against the best of them."""
    rows = {id(entry): entry.candidate.support.row for entry in able if entry.candidate.support}
    metric = next(iter(rows.values())).main_metric
    sign = -1 if greater_is_better(metric) else 1
    ordered = sorted(able, key=lambda entry: (sign * (entry.value or 0.0), entry.candidate.name))
    found = standings([rows[id(entry)] for entry in ordered], evidence.outcomes)
    return [replace(entry, standing=standing) for entry, standing in zip(ordered, found, strict=True)]


def _doubt(entry: Entry, able: Sequence[Entry], evidence: Evidence) -> str | None:
    """Return why an entry is not to be taken though it can't be told apart from the best of `able`, best first, if there is a reason.

    Seeds that are much unlike can't be told apart from anything: one may have learned nothing.
    """
    support = entry.candidate.support
    if support is not None and has_collapsed(support.row.counted, evidence.outcomes):
        return "of several seeds one learned nothing"
    merits = [one.candidate.support.row.merit if one.candidate.support else -inf for one in able]
    if len(able) > 1 and not contenders(merits, [one.standing for one in able])[able.index(entry)]:
        behind = next(one for one in able if one.standing and one.standing.place == "behind")
        return f"worse on average than {behind.candidate.name}, which is behind"
    return None


def _cheapest(entries: Sequence[Entry]) -> Entry:
    return min(entries, key=_cost)


def _cost(entry: Entry) -> tuple[float, ...]:
    """Return what a row costs: memory in training (the whole batch at once), trained parameters, then measured time."""
    needs, support = entry.candidate.needs, entry.candidate.support
    seconds = support.row.time.train_seconds if support else None
    return (
        needs.whole_batch_bytes or float("inf"),
        needs.parameters.trainable if needs.parameters else float("inf"),
        float("inf") if seconds is None else seconds,
    )


def _pilot_order(entry: Entry) -> tuple[float, ...]:
    """Return what is smaller of the better pilot."""
    pilot = entry.candidate.pilot
    return tuple(-part for part in pilot.merit) if pilot else (0.0, 0.0)


def _order(entry: Entry, piloted: bool) -> tuple[Any, ...]:
    """Return what entries are sorted by: what may be chosen first, best first; then what was not measured, then the rest."""
    fits = {"yes": 0, "borderline": 1, "no": 3, None: 4}[entry.fits]
    if entry.excluded and fits < 2:
        fits = 2
    pilot = entry.candidate.pilot
    merit: tuple[float, ...] = (0.0, 0.0)
    if piloted and pilot:
        merit = _pilot_order(entry)
    elif entry.value is not None and entry.candidate.support:
        better = greater_is_better(entry.candidate.support.row.main_metric)
        merit = (-1.0, -entry.value if better else entry.value)
    return fits, not (pilot if piloted else entry.value is not None), merit, _cost(entry), entry.candidate.name
