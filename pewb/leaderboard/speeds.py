"""How fast the machines were on which rows were timed: which times of a table compare."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pewb.leaderboard.row import Row

_AS_FAST = 1.25
"""Machines whose matrix products differ by no more than this factor count as equally fast."""


def speeds_of(rows: Sequence[Row]) -> dict[str | None, list[float]]:
    """Return, for each precision, the speeds of the machines on which most rows were timed, of as many those of the best row."""
    timed = sorted((row for row in rows if row.machine_speeds), key=lambda row: -row.merit)
    machines: dict[str | None, list[list[float]]] = defaultdict(list)
    for row in timed:
        machines[row.precision].append(row.machine_speeds)
    found = {}
    for precision, speeds in machines.items():
        alike = [[other for other in speeds if _are_near([*one, *other])] for one in speeds]
        found[precision] = [speed for one in max(alike, key=len) for speed in one]
    return found


def compares(row: Row, speeds: dict[str | None, list[float]]) -> bool:
    """Return whether a row was timed on machines as fast as most of its precision; one of which that is not known is thought to be."""
    if row.time.train_seconds is None or not row.machine_speeds or not speeds.get(row.precision):
        return True
    return all(any(_are_near([speed, other]) for other in speeds[row.precision]) for speed in row.machine_speeds)


def _are_near(speeds: Sequence[float]) -> bool:
    return max(speeds) <= _AS_FAST * min(speeds)


def gigaflops(speeds: Sequence[float]) -> str:
    """Return speeds in operations a second as "440", or as "440 to 916" where they differ."""
    low, high = f"{min(speeds) / 1e9:.0f}", f"{max(speeds) / 1e9:.0f}"
    return low if low == high else f"{low} to {high}"
