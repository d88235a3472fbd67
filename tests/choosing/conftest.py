"""Choices with stand-ins for the simulation: what a row needs grows by so much with each example."""

from collections.abc import Callable

import pytest

from pewb import choosing
from pewb.choosing.needs import Needs, Setting
from pewb.planner.estimate import halvings
from pewb.record import Parameters

MIB = 2**20
NEEDS = {
    "full": (400, 12, 22_700_000),
    "lora": (120, 8, 222_338),
    "bottleneck_adapter": (120, 8, 743_810),
    "prefix_tuning": (120, 8, 240_770),
    "prompt_tuning": (120, 10, 156_290),
    "top_layers": (140, 4, 3_697_538),
    "head_only": (100, 1, 148_610),
}
"""MiB of a strategy, MiB of each example, trained parameters."""


def needs_like(table: dict[str, tuple[int, int, int]], borderline: tuple[str, ...] = ()) -> Callable[..., Needs]:
    """Return a stand-in for `needs_of`; without checkpointing, and with it at half of what an example takes."""

    def needs_of(cell, target, limits, reporter):
        base, each, trainable = table[cell.recipe.strategy.kind]
        if cell.refusal:
            return Needs(cell.recipe.backbone[-1], {}, refusal=cell.refusal)
        batch = cell.recipe.training.batch_size

        def setting(limit, checkpointing):
            cost = each / 2 if checkpointing else each
            fitting = [size for size in halvings(batch) if (base + cost * size) * MIB <= limit]
            size = fitting[0] if fitting else 1
            fits = "no" if not fitting else "borderline" if cell.recipe.strategy.kind in borderline else "yes"
            is_whole = size == batch and not checkpointing
            return Setting(checkpointing, size, int((base + cost * size) * MIB), base * MIB, 64, limit, fits, is_whole)

        order = ("yes", "borderline", "no")
        settings = {
            limit: sorted(
                (setting(limit, on) for on in (False, True)),
                key=lambda one: (order.index(one.fits), one.gradient_checkpointing),
            )
            for limit in limits
        }
        counts = Parameters(trainable=trainable, head=100, total=22_700_000)
        return Needs(cell.recipe.backbone[-1], settings, (base + each * batch) * MIB, counts, 1000)

    return needs_of


@pytest.fixture
def simulated_as(monkeypatch):
    """Return a function that puts a stand-in in the simulation's place."""

    def put(table=None, borderline=()):
        monkeypatch.setattr(choosing, "needs_of", needs_like(NEEDS if table is None else table, borderline))

    put()
    return put
