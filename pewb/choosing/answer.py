"""The answer: rows with what they need and what speaks for them, ranked within each memory size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pewb.choosing.evidence import Foreign, Support
from pewb.choosing.needs import Needs, Setting
from pewb.leaderboard.verdicts import Standing
from pewb.planner.estimate import Fits
from pewb.recipe import Cell


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
