"""A deep model's trace out of two shallow ones': layers that are alike do alike.

A trace goes through the layers in sweeps: forwards, backwards, through the optimizer's parameters. Where a sweep does the
same in every layer but those at the ends, and a model one layer deeper does the same once more, so does each layer that
follows. What a layer takes or gives back is known by where it was made: so many layers before this one, or counted
from either end. If anything in the two traces goes otherwise there is no answer, and the deep model has to be simulated.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal, NamedTuple

from pewb.planner.trace import Change

SHALLOW = (4, 5)
"""Numbers of layers of the models whose traces are needed: one or two besides those that may be special."""

_ONCE: list[int | None] = [None]

_SPECIAL = (0, 1, -1)
"""The lowest two, since a backward pass may end within the first, and the last."""


class _Maker(NamedTuple):
    """Where a storage was made: in which run, in which layer if the run is a sweep, as the how-manieth there."""

    run: int
    layer: int | None
    number: int


class _Event(NamedTuple):
    """A change, and from where it is seen."""

    change: Change
    maker: _Maker
    makes: bool
    num_made: int
    """By the maker's layer, all in all."""
    layer: int | None
    num_layers: int


_End = Literal["nothing", "here", "first", "last"]


class _Rule(NamedTuple):
    """Where a storage was made, in a model of any depth."""

    run: int
    counted_from: _End
    layers: int
    """From there."""
    number: int
    """Of what is made in that layer; below zero it is counted from the end."""


@dataclass
class _Run:
    """Events that follow each other: a sweep, layer by layer, or what is done between sweeps."""

    layers: list[int] | None
    """Of a sweep, in its order."""
    segments: list[list[_Event]]

    def of_layer(self, layer: int) -> list[_Event]:
        """Return a sweep's events in a layer; -1 is the last."""
        assert self.layers is not None
        return self.segments[self.layers.index(layer % len(self.layers))]


def extended(traces: Sequence[Sequence[Change]], num_layers: int, stack: str) -> list[Change] | None:
    """Return the trace of a model of `num_layers` out of those of models of `SHALLOW` layers; None: there is no telling.

    `stack` is what the layers are called, without their number.
    """
    fewer, more = (_cut(trace, count) for trace, count in zip(traces, SHALLOW, strict=True))
    if [run.layers is None for run in fewer] != [run.layers is None for run in more]:
        return None
    renamed = _renaming(stack)
    storages: dict[tuple[int, int | None, int], int] = {}
    counts: list[Mapping[int | None, int]] = []
    found: list[Change] = []
    for number, (less, run) in enumerate(zip(fewer, more, strict=True)):
        told = _once(less, run, num_layers) if run.layers is None else _swept(less, run, num_layers)
        if told is None:
            return None
        counts.append(Counter({layer: sum(one.makes for one in template) for layer, template in told}))
        for layer, template in told:
            ends = {"nothing": None, "here": layer, "first": 0, "last": num_layers - 1}
            for makes, (in_run, counted_from, away, place), change, size in template:
                end = ends[counted_from]
                origin = None if end is None else end + away
                if place < 0:
                    place += counts[in_run].get(origin, 0)
                maker = in_run, origin, place
                if makes == (maker in storages):
                    return None
                storage = storages.setdefault(maker, len(storages))
                module = change.module if layer is None else renamed(change.module, layer)
                found.append(Change(storage, size, change.category, change.operation, module, layer, number))
    return found


class _Step(NamedTuple):
    """An event of any depth."""

    makes: bool
    rule: _Rule
    change: Change
    size: int


_Told = list[tuple[int | None, list[_Step]]]


def _once(fewer: _Run, more: _Run, num_layers: int) -> _Told | None:
    """Return what is done once, however many layers there are; a size may grow in proportion to their number."""
    template = _common([fewer.segments[0], more.segments[0]], may_grow=True)
    if template is None:
        return None
    beyond = num_layers - SHALLOW[1]
    pairs = zip(fewer.segments[0], template, strict=True)
    return [(None, [step._replace(size=step.size + beyond * (step.size - one.change.size)) for one, step in pairs])]


def _swept(fewer: _Run, more: _Run, num_layers: int) -> _Told | None:
    """Return a sweep through all layers: the special ones as they are, the others as those between them."""
    assert fewer.layers is not None
    assert more.layers is not None
    special = {layer % num_layers: _common([fewer.of_layer(layer), more.of_layer(layer)]) for layer in _SPECIAL}
    other = _common([fewer.of_layer(2), more.of_layer(3), more.of_layer(2)])
    goes_up = fewer.layers[0] < fewer.layers[1]
    if goes_up != (more.layers[0] < more.layers[1]):
        return None
    told: _Told = []
    for layer in range(num_layers) if goes_up else reversed(range(num_layers)):
        template = special.get(layer, other)
        if template is None:
            return None
        told.append((layer, template))
    return told


def _common(segments: Sequence[list[_Event]], may_grow: bool = False) -> list[_Step] | None:
    """Return the events of the last segment, if those of the others are the same."""
    if len({len(segment) for segment in segments}) > 1:
        return None
    template = []
    for events in zip(*segments, strict=True):
        *others, last = events
        for one in others:
            if one.change[2:4] != last.change[2:4] or one.makes != last.makes:
                return None
            if one.change.size != last.change.size and not may_grow:
                return None
        rule = _rule(events)
        if rule is None:
            return None
        template.append(_Step(last.makes, rule, last.change, last.change.size))
    return template


def _rule(events: Sequence[_Event]) -> _Rule | None:
    """Return where what the events change was made, as can be said of all of them alike."""
    runs = {one.maker.run for one in events}
    from_start = {one.maker.number for one in events}
    from_end = {one.maker.number - one.num_made for one in events}
    numbers = from_start if len(from_start) == 1 else from_end
    if len(runs) > 1 or len(numbers) > 1:
        return None
    [run], [number] = runs, numbers
    makers = [one.maker.layer for one in events]
    if all(layer is None for layer in makers):
        return _Rule(run, "nothing", 0, number)
    ends: tuple[tuple[_End, list[int | None]], ...] = (
        ("here", [one.layer for one in events]),
        ("first", [0 for _ in events]),
        ("last", [one.num_layers - 1 for one in events]),
    )
    for end, origins in ends:
        away = {None if None in (to, since) else to - since for to, since in zip(makers, origins, strict=True)}  # type: ignore[operator]
        if len(away) == 1 and None not in away:
            return _Rule(run, end, away.pop() or 0, number)
    return None


def _cut(trace: Sequence[Change], num_layers: int) -> list[_Run]:
    """Return the runs of a trace, with where each storage was made."""
    runs = list(_runs(trace, num_layers))
    makers: dict[int, _Maker] = {}
    counts: dict[tuple[int, int | None], int] = Counter()
    for number, (layers, segments) in enumerate(runs):
        for layer, segment in zip(layers or _ONCE, segments, strict=True):
            for change in segment:
                if change.storage not in makers:
                    makers[change.storage] = _Maker(number, layer, counts[number, layer])
                    counts[number, layer] += 1
    seen: set[int] = set()

    def event(change: Change, layer: int | None) -> _Event:
        maker = makers[change.storage]
        makes = change.storage not in seen
        seen.add(change.storage)
        return _Event(change, maker, makes, counts[maker[:2]], layer, num_layers)

    return [
        _Run(
            layers,
            [[event(one, layer) for one in part] for layer, part in zip(layers or _ONCE, segments, strict=True)],
        )
        for layers, segments in runs
    ]


def _runs(trace: Sequence[Change], num_layers: int) -> Iterator[tuple[list[int] | None, list[list[Change]]]]:
    """Yield the sweeps of a trace, which go through all layers, and between them everything else."""
    upwards = list(range(num_layers))
    other: list[Change] = []
    for stretch in _stretches(trace):
        layers = [segment[0].layer for segment in stretch]
        if layers in (upwards, upwards[::-1]):
            if other:
                yield None, [other]
                other = []
            yield [layer for layer in layers if layer is not None], stretch
        else:
            other += [change for segment in stretch for change in segment]
    if other:
        yield None, [other]


def _stretches(trace: Iterable[Change]) -> Iterator[list[list[Change]]]:
    """Yield the changes in segments, each of one layer, that follow each other in one direction."""
    segments: list[list[Change]] = []
    for change in trace:
        last = segments[-1][0] if segments else None
        if last and last.sweep == change.sweep and last.layer == change.layer:
            segments[-1].append(change)
        elif last and last.sweep == change.sweep and _goes_on([*(one[0].layer for one in segments[-2:]), change.layer]):
            segments.append([change])
        else:
            if segments:
                yield segments
            segments = [[change]]
    if segments:
        yield segments


def _goes_on(layers: Sequence[int | None]) -> bool:
    """Return whether each of `layers` comes after the one before it, or each before it."""
    steps = {None if one is None or other is None else other - one for one, other in pairwise(layers)}
    return steps in ({1}, {-1})


def _renaming(stack: str) -> Callable[[str, int], str]:
    """Return what puts another layer into the name of a module."""
    pattern = re.compile(rf"((?:^|[. ]){re.escape(stack)}\.)\d+")

    @cache
    def renamed(module: str, layer: int) -> str:
        return pattern.sub(rf"\g<1>{layer}", module)

    return renamed
