"""What every head is: how a task's examples go through a model, what they cost, and what is made of its outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from pewb.batching import Encoded, Inputs
from pewb.evaluation.tables import Table
from pewb.record import Confusion, Metric
from pewb.tasks import Split, TaskFamily

Reduction = Literal["sum", "none"]


class Predicted(Protocol):
    """What a model says of the examples of one split."""

    def metrics(self) -> dict[str, Metric]:
        """Return every metric with its interval."""
        ...

    def confusion(self) -> Confusion | None:
        """Return the confusion matrix, where there are classes of which each example has one."""
        ...

    def warnings(self) -> list[str]:
        """Return what must be known before the metrics are believed."""
        ...

    def table(self) -> Table:
        """Return what is kept of each example."""
        ...


@dataclass(frozen=True)
class Head(ABC):
    """One way in which a task goes through a model.

    The model is called without labels: a mean over a micro-batch, which it would return, is not the batch's mean. Call
    these under the run's autocast.
    """

    task: TaskFamily
    labels: Sequence[str] = ()
    """Names of the classes."""
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    """What an example of each class counts in the loss; empty: all the same."""

    @abstractmethod
    def encode(self, tokenizer: Any, split: Split, max_tokens: int, cache: Path | None = None) -> Encoded:
        """Tokenise a split, no row longer than `max_tokens`; what was tokenised before is taken from the folder `cache`.

        Raises:
            InputError: nothing of the examples is left to be learned, or the tokenizer does not serve.
        """

    def encode_training(self, tokenizer: Any, split: Split, max_tokens: int, cache: Path | None = None) -> Encoded:
        """Tokenise the split that is trained on, where that is another thing than what is evaluated."""
        return self.encode(tokenizer, split, max_tokens, cache)

    def logits(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return what `model` says of a batch."""
        logits: torch.Tensor = model(**inputs).logits
        return logits

    @abstractmethod
    def losses(self, model: Any, inputs: Inputs, labels: torch.Tensor, reduction: Reduction = "sum") -> torch.Tensor:
        """Return the sum of a batch's losses in float32, or, for no gradients, each row's, (batch,)."""

    @abstractmethod
    def outputs(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return what is kept of each row of a batch, (batch, …), for `predicted`; not finite where the model's is not."""

    @abstractmethod
    def predicted(self, found: Sequence[torch.Tensor], data: Encoded) -> Predicted:
        """Return what follows from the `outputs` of every row of `data`, in its order and in the host's memory."""

    def calibrated(self, predicted: Predicted) -> Head:
        """Return the head with what is chosen on the validation split, of which `predicted` is; of most heads nothing is."""
        return self

    @property
    def is_calibrated(self) -> bool:
        """Whether something of it is chosen on the validation split once the model is trained."""
        return False

    @property
    def constants(self) -> dict[str, float]:
        """What answers depend on beside the model's weights, by name: it is kept in the record, and with the weights."""
        return {}

    @abstractmethod
    def blank_labels(self, num_rows: int, num_tokens: int, device: torch.device) -> torch.Tensor:
        """Return labels of the shape and type of a batch's, where real ones would be; `device` is that of the inputs."""
