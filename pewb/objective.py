"""Objectives: what a model is trained to make small, which is also what its evaluation begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from pewb.device import moved
from pewb.kernels.token_loss import head_input, summed_token_loss, token_losses
from pewb.tasks import ModelHead, TaskFamily

IGNORED = -100
"""The label of a position at which nothing is to be predicted: a prompt's token, padding."""

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Objective:
    """How a family's batches go through a model, and what its outputs cost.

    The model is called without labels: a mean over a micro-batch, which it would return, is not the batch's mean. Call
    these under the run's autocast.
    """

    label_smoothing: float = 0.0

    def logits(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return what `model` says of a batch."""
        logits: torch.Tensor = model(**inputs).logits
        return logits

    def losses(
        self, model: Any, inputs: Inputs, labels: torch.Tensor, reduction: Literal["sum", "none"] = "sum"
    ) -> torch.Tensor:
        """Return the sum of a batch's losses in float32, or, for no gradients, each example's, (batch,)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Classes(Objective):
    """The cross-entropy of each example's class: logits (batch, classes), labels (batch,); an example weighs 1."""

    def losses(
        self, model: Any, inputs: Inputs, labels: torch.Tensor, reduction: Literal["sum", "none"] = "sum"
    ) -> torch.Tensor:
        """Return the sum over the examples, or each one's loss."""
        logits = self.logits(model, inputs, labels).float()
        return functional.cross_entropy(logits, labels, reduction=reduction, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class Tokens(Objective):
    """The cross-entropy of each target token; labels are (batch, tokens), and in the host's memory.

    An example weighs as much as it has targets, the labels that are not `IGNORED`. Logits are computed for the positions
    of targets alone, and in pieces.
    """

    def targets(self, num_positions: int, labels: torch.Tensor) -> torch.Tensor:
        """Return the token that is to be predicted at each of the model's positions, (batch, positions)."""
        return labels

    def losses(
        self, model: Any, inputs: Inputs, labels: torch.Tensor, reduction: Literal["sum", "none"] = "sum"
    ) -> torch.Tensor:
        """Return the sum over the target tokens, or each example's sum."""
        head = model.get_output_embeddings()
        states, are_read = head_input(model, head, lambda: self.logits(model, inputs, labels))
        targets = self.targets(states.shape[1], labels)
        [places] = (targets.flatten() != IGNORED).nonzero(as_tuple=True)
        chosen = moved(targets.flatten()[places], states.device)
        rows = states.flatten(0, 1).index_select(0, moved(places, states.device))
        last: nn.Module = head if are_read else nn.Identity()
        if reduction == "sum":
            return summed_token_loss(rows, last, chosen, self.label_smoothing)
        losses = token_losses(rows, last, chosen, self.label_smoothing)
        owners = moved(places // states.shape[1], losses.device)
        return losses.new_zeros(len(labels)).index_add_(0, owners, losses)


@dataclass(frozen=True)
class NextTokens(Tokens):
    """The loss of a causal language model: every position predicts the token after it."""

    def targets(self, num_positions: int, labels: torch.Tensor) -> torch.Tensor:
        """Return the labels moved one position on; virtual tokens stand before the text."""
        return functional.pad(labels, (num_positions - labels.shape[1], 1), value=IGNORED)[:, 1:]


@dataclass(frozen=True)
class TargetTokens(Tokens):
    """The loss of an encoder-decoder, whose decoder reads the target one token behind."""

    def logits(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return the logits of the target's tokens, which the model itself moves on for its decoder."""
        labels = moved(labels, inputs["input_ids"].device)
        shifted = model.prepare_decoder_input_ids_from_labels(labels=labels)
        return super().logits(model, inputs | {"decoder_input_ids": shifted}, labels)


_OBJECTIVES: dict[ModelHead, type[Objective]] = {
    "sequence_classification": Classes,
    "causal_lm": NextTokens,
    "seq2seq_lm": TargetTokens,
}


def objective_of(family: type[TaskFamily], label_smoothing: float = 0.0) -> Objective:
    """Return the objective of a family of tasks."""
    return _OBJECTIVES[family.model_head](label_smoothing)
