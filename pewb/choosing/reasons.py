"""Why a row is the choice, or why none is, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from pewb.choosing.answer import Entry
from pewb.leaderboard.cells import p_value, signed
from pewb.units import format_bytes

TIME_UNKNOWN = "how long it trains was not measured"

_FEW = 4
"""So many rows are named in a reason; of more, their number."""


def reason_of_choice(
    choice: Entry, able: Sequence[Entry], passed_over: Sequence[tuple[Entry, str]], memory: str
) -> str:
    """Return why `choice` is taken, of `able`, the measured rows that fit, best first; `passed_over` are cheaper ones, and why."""
    reason = _reason_of_choice(choice, able, memory)
    for doubt in dict.fromkeys(doubt for _, doubt in passed_over):
        names = [entry.candidate.name for entry, other in passed_over if other == doubt]
        reason += f"; {_listed(names)} {'is' if len(names) == 1 else 'are'} passed over: {doubt}"
    return reason


def _reason_of_choice(choice: Entry, able: Sequence[Entry], memory: str) -> str:
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
        standing = choice.standing
        corrected, worst = (
            (standing.corrected_p, standing.at_worst(support.row.main_metric if support else None))
            if standing
            else (None, None)
        )
        p = f" ({p_value(corrected)}; at worst {signed(worst)})" if corrected is not None and worst is not None else ""
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


def reason_of_pilots(best: Entry, able: Sequence[Entry], memory: str) -> str:
    """Return why `best` is taken, of `able`, the rows that fit and were trained in pilots."""
    pilot, setting = best.candidate.pilot, best.setting
    assert pilot is not None
    assert setting is not None
    last = [entry for entry in able if entry.candidate.pilot and entry.candidate.pilot.round == pilot.round]
    before = f" that were left in round {pilot.round}, of {len(able)}" if len(last) < len(able) else ""
    return (
        f"{best.told}: {pilot.value:.3f} {pilot.metric.replace('_', ' ')} on validation in a pilot of {pilot.steps} steps,"
        f" the best of the {len(last)}{before}, {format_bytes(setting.train_bytes)} of {memory}; one seed each, not tested"
    )


def reason_for_nothing(entries: Sequence[Entry], pool: Sequence[Entry], memory: str) -> str:
    """Return why none of `entries` is taken; `pool` are those that fit and break no budget, cheapest first."""
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
        if TIME_UNKNOWN not in reasons:
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
