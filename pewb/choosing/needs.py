"""What a row needs at each setting, simulated once for every memory size that is asked about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pewb.errors import RefusedError
from pewb.planner.curve import Curve, curve_of
from pewb.planner.estimate import MARGIN, Fits, halvings, largest_within, verdict
from pewb.planner.plan import question_of
from pewb.planner.simulation import Phase, Question
from pewb.planner.target import Target
from pewb.prediction import EVALUATION_BATCH_SIZE
from pewb.recipe import Cell, Training
from pewb.record import Parameters
from pewb.reporting import Reporter

_FITS: tuple[Fits, ...] = ("yes", "borderline", "no")


@dataclass(frozen=True)
class Setting:
    """One way to train a row within a limit: so many examples at once, with or without checkpointing."""

    gradient_checkpointing: bool
    micro_batch_size: int
    """The largest of the halvings of the batch that fits; 1 where none does."""
    train_bytes: int
    evaluation_bytes: int
    evaluation_batch_size: int
    limit_bytes: int
    fits: Fits
    is_whole_batch: bool
    """Whether it takes as many examples at once as the recipe asks for, without checkpointing."""

    @property
    def room_bytes(self) -> int:
        """What is left of the limit; below zero: what is missing. An evaluation takes no more examples than fit."""
        least = self.evaluation_bytes if self.evaluation_batch_size == 1 else 0
        return self.limit_bytes - max(self.train_bytes, least)

    def to_json(self) -> dict[str, Any]:
        """Return the setting as JSON values."""
        return {
            "fits": self.fits,
            "micro_batch_size": self.micro_batch_size,
            "gradient_checkpointing": self.gradient_checkpointing,
            "train_bytes": self.train_bytes,
            "evaluation_bytes": self.evaluation_bytes,
            "evaluation_batch_size": self.evaluation_batch_size,
            "limit_bytes": self.limit_bytes,
            "room_bytes": self.room_bytes,
        }


@dataclass(frozen=True)
class Needs:
    """What one row needs."""

    backbone: str
    """The one of the recipe's names whose architecture was simulated."""
    settings: dict[int, list[Setting]]
    """By limit, the one to take first."""
    whole_batch_bytes: int | None = None
    """In training, the whole batch at once: what rows are compared by, whatever micro-batches a limit forces on them."""
    parameters: Parameters | None = None
    shipped_bytes: int | None = None
    refusal: str | None = None
    """Why the row can't be."""
    doubts: tuple[str, ...] = ()
    """Why the answer is less sure than others."""
    notices: tuple[str, ...] = ()


def needs_of(cell: Cell, target: Target, limits: Sequence[int], reporter: Reporter) -> Needs:
    """Return how a row fits within each of `limits` (bytes), and its own `[device]` memory, on devices like `target`.

    Checkpointing is simulated only where the whole batch does not fit without it. It computes every forward pass twice, so
    it is taken where nothing fits without it, though with smaller micro-batches.

    Raises:
        InputError: the backbone or the task is unknown.
    """
    notices: list[str] = []
    question = question_of(cell.recipe, reporter, notices)
    if cell.refusal:
        return Needs(question.backbone, {}, refusal=cell.refusal)
    own = cell.recipe.device.memory_bytes
    within = {limit: limit if own is None else min(limit, own) for limit in limits}
    limits = sorted(set(within.values()))
    found: dict[int, list[Setting]] = {limit: [] for limit in limits}
    doubts: dict[str, None] = {}
    whole, stays, facts = None, 0, None
    evaluated: dict[int, tuple[int, Phase]] = {}
    try:
        for checkpointing in _checkpointing(cell):
            left = [limit for limit in limits if not any(_is_enough(one, question) for one in found[limit])]
            left = [limit for limit in left if stays * (1 - MARGIN) <= limit]
            if not left:
                break
            training = question.training.model_copy(update={"gradient_checkpointing": checkpointing})
            with curve_of(replace(question, training=training), target) as curve:
                row = _Row(curve, question.training, evaluated)
                whole = whole or row.whole_batch_bytes
                for limit in sorted(left, reverse=True):  # what is broken off within one is known of the smaller ones
                    found[limit].append(row.setting(limit, checkpointing))
                stays = stays or row.bytes_that_stay
                facts = curve.facts
            doubts |= dict.fromkeys(facts.doubts)
            notices += facts.notices
    except RefusedError as error:
        if facts is None:
            return Needs(question.backbone, {}, refusal=str(error))
    assert facts is not None
    for settings in found.values():
        settings.sort(
            key=lambda one: (_FITS.index(one.fits), one.fits == "no" and one.train_bytes, one.gradient_checkpointing)
        )
    return Needs(
        question.backbone,
        {limit: found[least] for limit, least in within.items()},
        whole,
        facts.parameters,
        facts.shipped_bytes,
        doubts=tuple(doubts),
        notices=tuple(dict.fromkeys(notices)),
    )


def _checkpointing(cell: Cell) -> Iterator[bool]:
    """Yield without, then with checkpointing, as far as the recipe and the strategy leave the choice."""
    if not cell.recipe.training.gradient_checkpointing:
        yield False
    if cell.recipe.strategy.supports_gradient_checkpointing:
        yield True


def _is_enough(setting: Setting, question: Question) -> bool:
    return setting.fits == "yes" and setting.micro_batch_size == question.training.asked_micro_batch_size


class _Row:
    """A row's curve, read at the halvings of its batch."""

    def __init__(self, curve: Curve, training: Training, evaluated: dict[int, tuple[int, Phase]]) -> None:
        """Begin with the evaluations that are known, by limit, on which checkpointing has no influence."""
        self._curve = curve
        asked = training.micro_batch_size
        self._sizes = [asked] if asked else halvings(training.batch_size)
        self._least: Phase | None = None
        self._evaluated = evaluated

    @property
    def whole_batch_bytes(self) -> int:
        """What training holds with as many examples at once as the recipe asks for."""
        return self._train(self._sizes[0]).needed_bytes

    @property
    def bytes_that_stay(self) -> int:
        """What of the smallest training's peak neither checkpointing nor smaller micro-batches make less."""
        peak = self._least.peak.by_category if self._least else {}
        return sum(peak.get(name, 0) for name in ("weights", "gradients", "optimizer"))

    def setting(self, limit: int, checkpointing: bool) -> Setting:
        """Return the setting to take within `limit`."""
        size = largest_within(limit, self._sizes, self._train) or self._sizes[-1]
        train = self._train(size)
        at_once, evaluation = self._evaluation(limit) if verdict(train, limit) != "no" else self._least_evaluation()
        answers = [verdict(phase, limit) or "yes" for phase in (train, evaluation)]
        return Setting(
            gradient_checkpointing=checkpointing,
            micro_batch_size=size,
            train_bytes=train.needed_bytes,
            evaluation_bytes=evaluation.needed_bytes,
            evaluation_batch_size=at_once,
            limit_bytes=limit,
            fits=max(answers, key=_FITS.index),
            is_whole_batch=size == self._sizes[0] and not checkpointing,
        )

    def _evaluation(self, limit: int) -> tuple[int, Phase]:
        if limit not in self._evaluated:
            at_once = largest_within(limit, halvings(EVALUATION_BATCH_SIZE), self._curve.evaluate) or 1
            self._evaluated[limit] = at_once, self._curve.evaluate(at_once)
        return self._evaluated[limit]

    def _least_evaluation(self) -> tuple[int, Phase]:
        return 1, self._curve.evaluate(1)

    def _train(self, size: int, limit_bytes: int | None = None) -> Phase:
        phase = self._curve.train(size, limit_bytes)[0]
        if self._least is None or phase.allocated_bytes < self._least.allocated_bytes:
            self._least = phase
        return phase
