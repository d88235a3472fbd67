"""Examples whose texts are the same, within a split and between splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from pewb.tasks import Split
from pewb.tasks.splits import text_key


@dataclass(frozen=True)
class Repeated:
    """Which examples of one split are there already; each example is named in one list at most."""

    elsewhere: dict[str, list[int]]
    """Examples whose texts are in another split, by that split's name."""
    contradictory: list[int]
    """Of the rest, those with equal texts and unlike labels."""
    duplicates: list[int]
    """Of the rest, those with an earlier example's texts and label."""

    @property
    def all(self) -> list[int]:
        """Every example that is named."""
        return sorted(
            [*(one for found in self.elsewhere.values() for one in found), *self.contradictory, *self.duplicates]
        )


_HELD_OUT = {"train": ("test", "validation"), "validation": ("test",), "test": ()}
"""From which other splits a split's examples must differ: what is trained on gives way to what it is judged by."""


def repeated(splits: Mapping[str, Split]) -> dict[str, Repeated]:
    """Return what is repeated in each of `train`, `validation` and `test`."""
    keys = {name: [text_key(texts) for texts in split.texts] for name, split in splits.items()}
    found = {}
    for name, split in splits.items():
        taken: set[int] = set()
        elsewhere = {}
        for other in _HELD_OUT[name]:
            there = set(keys[other])
            elsewhere[other] = [place for place, key in enumerate(keys[name]) if key in there and place not in taken]
            taken |= set(elsewhere[other])
        groups: dict[str, list[int]] = defaultdict(list)
        for place, key in enumerate(keys[name]):
            if place not in taken:
                groups[key].append(place)
        contradictory, duplicates = [], []
        for places in groups.values():
            labels = [split.labels[place] for place in places] if split.labels else [None]
            if any(label != labels[0] for label in labels):
                contradictory += places
            else:
                duplicates += places[1:]
        found[name] = Repeated(elsewhere, sorted(contradictory), sorted(duplicates))
    return found
