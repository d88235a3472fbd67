"""One line of the leaderboard."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pewb.record import Memory, Metric, Parameters, Status, Time
from pewb.tasks import greater_is_better, needs_new_head

Kind = Literal["strategy", "reference", "untouched"]
"""A `reference` is a classical predictor without a backbone; `untouched` is the backbone with an untrained head."""


_SCHEDULE = re.compile(r"^(no )?lr | epochs$| steps$")
"""What of a row's settings says how fast and how long it was trained."""


class Row(BaseModel):
    """One line of the leaderboard; what is named as in a record means the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    backbone_digest: str | None
    """SHA-256 over the digests of the backbone's files."""
    task: str
    test_digest: str | None
    train_examples: int | None
    test_examples: int | None
    majority_share: float | None
    """What always answering with the most frequent test label would score."""
    device: str | None
    """Its kind: cpu, cuda, mps, xpu."""
    device_names: list[str]

    kind: Kind
    strategy: str
    settings: str
    quantization: str
    precision: str | None
    distinction: str
    """Recipe keys that tell this row from others of the same settings; mostly empty."""
    numerics_version: int
    older_numerics: bool
    """Whether pewb has computed differently since."""

    seeds: list[int]
    runs: list[str]
    """Every run of this row, also those that another run of the same seed stands for."""
    counted: list[str]
    """The successful runs whose mean this row is, one for each seed."""
    num_outcomes: int
    """Runs, less those that were cancelled where the seed has another outcome."""
    records: list[str]
    """Their files, relative to the folder of the results."""
    status: Status
    """`success` where any seed succeeded."""
    reason: str | None
    outcomes: dict[str, int]
    """Number of seeds by status."""
    warnings: list[str]

    parameters: Parameters | None
    trainable_share: float | None
    num_trials: int | None
    """Of the search that chose the hyper-parameters; none where they are the recipe's."""
    memory: Memory
    """The largest of any seed."""
    memory_predicted: Memory = Memory()
    """What the plan said before the runs, the largest of any seed; empty for records from before there were plans."""
    plan_errors: list[float]
    """How far the plan of each seed that succeeded was from the peak in training that it measured, as a share of that."""
    time: Time
    """The mean over seeds."""
    machine_speeds: list[float]
    """How many floating-point operations a second products of matrices reached on the machine of each seed that is counted."""
    time_compares: bool = True
    """Whether its times are of machines as fast as those of most rows of its table."""
    shipped_bytes: int | None
    main_metric: str | None
    metrics: dict[str, Metric]
    """The mean over seeds, with the interval of `pooled_metric`."""
    baseline: dict[str, Metric]

    @property
    def main(self) -> Metric | None:
        """The main metric's value."""
        return self.metrics.get(self.main_metric) if self.main_metric else None

    @property
    def merit(self) -> float:
        """How good the main metric's value is: more is better, whatever the metric; the least of all without a value."""
        if self.main is None:
            return -math.inf
        return self.main.value if greater_is_better(self.main_metric) else -self.main.value

    @property
    def had_new_head(self) -> bool:
        """Whether the untouched model was tested with a head that was new."""
        return needs_new_head(self.main_metric)

    @property
    def peak_memory_bytes(self) -> int | None:
        """The peak in training: what a GPU's allocator held, else the live tensors."""
        return self.memory.train.held_bytes

    @property
    def comparable_seconds(self) -> float | None:
        """The time of its training, where it compares with the table's."""
        return self.time.train_seconds if self.time_compares else None

    @property
    def planned_memory_bytes(self) -> int | None:
        """What the plan said of that peak before the runs."""
        return self.memory_predicted.train.held_bytes

    @property
    def label(self) -> str:
        """The row in full: strategy, storage of the frozen weights, settings."""
        details = ", ".join(part for part in (self.storage, self.settings, self.distinction) if part)
        return f"{self.strategy}: {details}" if details else self.strategy

    @property
    def title(self) -> str:
        """What the strategy is called where its settings are not told; `peft`, which is many, by the method's name too."""
        if self.strategy != "peft":
            return self.strategy
        return f"peft {re.split('[ ,]', self.settings)[0]}".strip()

    @property
    def method(self) -> str:
        """The strategy with its own settings and its storage, whatever the learning rate and the length of training."""
        settings = self.settings.split(", ") if self.kind == "strategy" else []
        own = [part for part in settings if not _SCHEDULE.search(part)]
        return " ".join(part for part in (self.strategy, self.storage, *own) if part)

    @property
    def storage(self) -> str:
        """How the frozen weights are stored, if they are quantised."""
        return "" if self.quantization == "none" else self.quantization

    @property
    def is_random(self) -> bool:
        """Whether another seed would give another result."""
        return self.kind != "reference"

    @property
    def has_every_seed(self) -> bool:
        """Whether every seed succeeded."""
        return len(self.counted) == len(self.seeds)

    @property
    def group_conditions(self) -> tuple[str, ...]:
        """What rows must share to stand in one table, as text; empty where it is not known."""
        place = (self.backbone, self.task, self.device, self.test_digest, self.backbone_digest)
        return tuple(str(part or "") for part in (*place, self.main_metric, self.train_examples))

    @property
    def task_conditions(self) -> tuple[Any, ...]:
        """What a reference must share with a group to stand in its table."""
        return self.task, self.test_digest, self.train_examples, self.main_metric
