"""What fits × what was measured: a ranking, the cheapest row that can't be told apart from the best, and why it is that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pewb.choosing.evidence import Evidence, Foreign, Support
from pewb.choosing.needs import Needs, Setting
from pewb.leaderboard.cells import p_value
from pewb.leaderboard.outcomes import has_collapsed
from pewb.leaderboard.verdicts import Standing, standings
from pewb.planner.estimate import Fits
from pewb.recipe import Cell, Recipe
from pewb.tasks import greater_is_better
from pewb.units import format_bytes, format_count, format_seconds


@dataclass(frozen=True)
class Budgets:
    """What a row may cost besides memory; None: anything."""

    max_trainable: int | None = None
    max_train_seconds: float | None = None
    unmeasured_too: bool = False
    """Whether a row may be taken of which it was not measured how long it trains."""


@dataclass(frozen=True)
class Pilot:
    """What a short training on the user's own data reached on the validation split: it ranks, and is no record."""

    value: float
    metric: str
    greater_is_better: bool
    steps: int
    round: int
    """Counted from 1; the later a row was left out, the better it did."""

    @property
    def merit(self) -> tuple[int, float]:
        """What is greater of the better pilot."""
        return self.round, self.value if self.greater_is_better else -self.value


@dataclass(frozen=True)
class Candidate:
    """A row of the recipe: what it needs, and what speaks for it."""

    cell: Cell
    name: str
    """The shortest that no other row has."""
    needs: Needs
    support: Support | None = None
    pilot: Pilot | None = None


@dataclass(frozen=True)
class Entry:
    """A candidate within one memory size."""

    candidate: Candidate
    setting: Setting | None
    """The one to take; None: the row can't be."""
    alternatives: tuple[Setting, ...]
    excluded: str | None
    """The budget besides memory that it breaks."""
    standing: Standing | None = None
    """Against the best that may be chosen."""

    @property
    def fits(self) -> Fits | None:
        """Whether it fits; None: the row can't be."""
        return self.setting.fits if self.setting else None

    @property
    def value(self) -> float | None:
        """The measured main metric."""
        support = self.candidate.support
        return support.row.main.value if support and support.row.main else None

    @property
    def told(self) -> str:
        """The row with its setting, as "lora nf4 with micro-batch 8"."""
        assert self.setting is not None
        checkpointing = " and gradient checkpointing" if self.setting.gradient_checkpointing else ""
        return f"{self.candidate.name} with micro-batch {self.setting.micro_batch_size}{checkpointing}"

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON values."""
        candidate, recipe = self.candidate, self.candidate.cell.recipe
        needs = candidate.needs
        pilot = candidate.pilot
        return {
            "name": candidate.name,
            "backbone": needs.backbone,
            "strategy": recipe.strategy.kind,
            "settings": recipe.strategy.describe(),
            "quantization": str(recipe.quantization),
            "batch_size": recipe.training.batch_size,
            "fits": self.fits,
            "setting": self.setting.to_json() if self.setting else None,
            "alternatives": [setting.to_json() for setting in self.alternatives],
            "parameters": needs.parameters.model_dump() if needs.parameters else None,
            "whole_batch_bytes": needs.whole_batch_bytes,
            "shipped_bytes": needs.shipped_bytes,
            "evidence": candidate.support.to_json() if candidate.support else None,
            "pilot": {"metric": pilot.metric, "value": pilot.value, "steps": pilot.steps, "round": pilot.round}
            if pilot
            else None,
            "against_best": self.standing.to_json() if self.standing else None,
            "excluded": self.excluded,
            "refusal": needs.refusal,
            "doubts": list(needs.doubts),
        }


@dataclass(frozen=True)
class Ranking:
    """The candidates within one memory size, the best measured first, and the choice."""

    title: str
    """The memory or the GPU, as text."""
    memory_bytes: int
    """Of the device."""
    limit_bytes: int
    """What of it a training may hold."""
    entries: list[Entry]
    choice: Entry | None
    reason: str

    def to_step(self) -> dict[str, Any]:
        """Return a step of the ladder as JSON values."""
        return {
            "memory": self.title,
            "memory_bytes": self.memory_bytes,
            "limit_bytes": self.limit_bytes,
            "fitting": [entry.candidate.name for entry in self.entries if entry.fits == "yes"],
            "choice": self.choice.to_json() if self.choice else None,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Chosen:
    """The answer: a ranking for each memory size, smallest first, and what was measured elsewhere."""

    rankings: list[Ranking]
    elsewhere: list[Foreign] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def ranking(self) -> Ranking:
        """That of the largest memory; of the only one, where one was asked about."""
        return self.rankings[-1]

    @property
    def choice(self) -> Entry | None:
        """What to take; None: nothing that fits was measured."""
        return self.ranking.choice

    def to_json(self) -> dict[str, Any]:
        """Return what `pewb choose --json` prints."""
        top = self.ranking
        return {
            "memory": top.title,
            "memory_bytes": top.memory_bytes,
            "limit_bytes": top.limit_bytes,
            "ranking": [entry.to_json() for entry in top.entries],
            "choice": top.choice.to_json() if top.choice else None,
            "reason": top.reason,
            "ladder": [ranking.to_step() for ranking in self.rankings] if len(self.rankings) > 1 else None,
            "elsewhere": [foreign.to_json() for foreign in self.elsewhere],
            "notices": self.notices,
        }


def names_of(cells: Sequence[Cell], backbones: Sequence[str]) -> list[str]:
    """Return for each row the shortest of its names that no other row has."""
    several = len(set(backbones)) > 1
    ladders = []
    for cell, backbone in zip(cells, backbones, strict=True):
        recipe = cell.recipe
        storage = "" if recipe.quantization.kind == "none" else str(recipe.quantization)
        kind, settings = recipe.strategy.kind, recipe.strategy.describe()
        alike = [one.recipe for one, other in zip(cells, backbones, strict=True) if other == backbone]
        alike = [one for one in alike if (one.strategy, one.quantization) == (recipe.strategy, recipe.quantization)]
        place = backbone if several else ""
        apart = _apart(recipe, alike)
        versions = (
            [kind, storage],
            [kind, storage, *apart],
            [kind, settings, storage],
            [kind, settings, storage, *apart],
        )
        ladders.append([" ".join(part for part in (place, *parts) if part) for parts in versions])
    counts = [Counter(names) for names in zip(*ladders, strict=True)]
    found = [
        next((name for name, count in zip(names, counts, strict=True) if count[name] == 1), names[-1])
        for names in ladders
    ]
    repeated = Counter(found)
    return [f"{name} (row {number})" if repeated[name] > 1 else name for number, name in enumerate(found, 1)]


def _apart(recipe: Recipe, others: Sequence[Recipe]) -> list[str]:
    """Return the keys of `training` and `limit` that tell a recipe from others, with their values."""
    limits = {f"limit.{key}": value for key, value in recipe.limit.model_dump().items()}
    differing = {key for key in limits if len({getattr(one.limit, key.partition(".")[2]) for one in others}) > 1}
    limited = [f"{key} {limits[key]}" for key in limits if key in differing and limits[key] is not None]
    keys = recipe.training.model_dump()
    told = [key for key in keys if len({str(getattr(one.training, key)) for one in others}) > 1]
    if "lora_plus_ratio" in told:  # whose default rate is another
        told = [key for key in told if key != "learning_rate"]
    return [f"{key.replace('_', ' ')} {keys[key]}" for key in told if keys[key] is not None] + limited


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
        choice, reason = best, _reason_of_pilots(best, able, title_of_limit)
    elif able:
        able = _against_best(able, evidence)
        by_candidate = {id(entry.candidate): entry for entry in able}
        entries = [by_candidate.get(id(entry.candidate), entry) for entry in entries]
        alike = [entry for entry in able if entry.standing is None or entry.standing.place in _ALIKE]
        choice = _cheapest([entry for entry in alike if not _has_collapsed(entry, evidence)] or alike)
        passed_over = [entry.candidate.name for entry in alike if _cost(entry) < _cost(choice)]
        reason = _reason(choice, able, title_of_limit)
        if passed_over:
            verb = "is" if len(passed_over) == 1 else "are"
            reason += f"; {_listed(passed_over)} {verb} passed over: of several seeds one learned nothing"
    else:
        choice, reason = None, _reason_for_nothing(entries, sorted(pool, key=_cost), title_of_limit)
    entries.sort(key=lambda entry: _order(entry, choice, piloted))
    return Ranking(title, memory_bytes, limit, entries, choice, reason)


_ALIKE = ("best", "alike")

_TIME_UNKNOWN = "how long it trains was not measured"

_FEW = 4
"""So many rows are named in a reason; of more, their number."""


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
        return None if budgets.unmeasured_too else _TIME_UNKNOWN
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


def _has_collapsed(entry: Entry, evidence: Evidence) -> bool:
    """Return whether a measured run learned nothing: so unlike its other seeds, it can't be told apart from anything."""
    support = entry.candidate.support
    return support is not None and has_collapsed(support.row.counted, evidence.outcomes)


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


def _order(entry: Entry, choice: Entry | None, piloted: bool) -> tuple[Any, ...]:
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


def _reason(choice: Entry, able: Sequence[Entry], memory: str) -> str:
    best, setting = able[0], choice.setting
    assert setting is not None
    held = f"{format_bytes(setting.train_bytes)} of {memory}"
    support = choice.candidate.support
    measured = f" on {support.row.task}" if support else ""
    if support and support.differs:
        measured += f" (with {', '.join(support.differs)})"
    start = f"{choice.told}: {choice.value:.3f}{measured}"
    unsure = " (a borderline fit: nothing that surely fits was measured)" if choice.fits == "borderline" else ""
    alike = [entry for entry in able if entry.standing and entry.standing.place == "alike"]
    untested = next((one.standing.reason for one in able if one.standing and one.standing.reason), None)
    if len(able) == 1:
        return f"{start}, the only row that fits and was measured, {held}{unsure}"
    cheapest = "the cheapest in memory"
    if any(one.setting and not one.setting.is_whole_batch for one in (choice, best, *alike)):
        cheapest = (
            f"{cheapest} (by {format_bytes(choice.candidate.needs.whole_batch_bytes or 0)} for the whole batch at once)"
        )
    if choice is not best:
        corrected = choice.standing.corrected_p if choice.standing else None
        p = f" ({p_value(corrected)})" if corrected is not None else ""
        return (
            f"{start}, can't be told apart from {best.candidate.name}'s {best.value:.3f}{p},"
            f" and {cheapest} of those, {held}{unsure}"
        )
    if alike:
        return f"{start}, the best of those that fit, and {cheapest} of those like it, {held}{unsure}"
    if untested:
        return (
            f"{start}, the best measured of those that fit, {held}{unsure}; it was not tested against all: {untested}"
        )
    return f"{start}, the best of those that fit, and told apart from every other, {held}{unsure}"


def _reason_of_pilots(best: Entry, able: Sequence[Entry], memory: str) -> str:
    pilot, setting = best.candidate.pilot, best.setting
    assert pilot is not None
    assert setting is not None
    last = [entry for entry in able if entry.candidate.pilot and entry.candidate.pilot.round == pilot.round]
    before = f" that were left in round {pilot.round}, of {len(able)}" if len(last) < len(able) else ""
    return (
        f"{best.told}: {pilot.value:.3f} {pilot.metric.replace('_', ' ')} on validation in a pilot of {pilot.steps} steps,"
        f" the best of the {len(last)}{before}, {format_bytes(setting.train_bytes)} of {memory}; one seed each, not tested"
    )


def _reason_for_nothing(entries: Sequence[Entry], pool: Sequence[Entry], memory: str) -> str:
    known = [entry for entry in entries if entry.setting]
    fitting = [entry for entry in known if entry.fits != "no"]
    if not known:
        return "no row of this recipe can be: see the reasons"
    if not fitting:
        every = [
            (max(one.train_bytes, one.evaluation_bytes), entry, one)
            for entry in known
            for one in (entry.setting, *entry.alternatives)
            if one
        ]
        needed, least, setting = min(every, key=lambda one: one[0])
        at_once = "one example" if setting.micro_batch_size == 1 else f"{setting.micro_batch_size} examples"
        how = f"{at_once} at a time{' and gradient checkpointing' if setting.gradient_checkpointing else ''}"
        return f"nothing fits {memory}; the least is {least.candidate.name}, {format_bytes(needed)} with {how}"
    if not pool:
        reasons = {entry.excluded for entry in fitting}
        if _TIME_UNKNOWN not in reasons:
            return "everything that fits breaks another budget; raise --max-trainable or --max-train-time"
        those = "what fits" if len(reasons) == 1 else "what fits and breaks no other budget"
        return (
            f"no evidence: how long {those} trains was not measured; run the recipe, or give --probe MINUTES, to choose"
        )
    surely = [entry for entry in pool if entry.fits == "yes"]
    named = surely or pool
    names = _listed([entry.candidate.name for entry in named]) if len(named) <= _FEW else f"{len(named)} rows"
    verb = ("fits" if len(named) == 1 else "fit") if surely else "may just fit"
    return f"no evidence: {names} {verb}; run the recipe, or give --probe MINUTES, to choose"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
