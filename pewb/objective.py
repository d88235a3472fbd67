"""Objectives: what a model is trained to make small, which is also what its evaluation begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional

from pewb.tasks import ModelHead, TaskFamily

IGNORED = -100
"""The label of a position at which nothing is to be predicted: a prompt's token, padding."""

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Objective:
    """How a family's batches go through a model, and what its outputs cost.

    The model is called without labels: a mean over a micro-batch, which it would return, is not the batch's mean.
    """

    label_smoothing: float = 0.0

    def logits(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return what `model` says of a batch."""
        logits: torch.Tensor = model(**inputs).logits
        return logits

    def losses(
        self, logits: torch.Tensor, labels: torch.Tensor, reduction: Literal["sum", "none"] = "sum"
    ) -> torch.Tensor:
        """Return the sum of the losses in float32, or each example's, (batch,)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Classes(Objective):
    """The cross-entropy of each example's class: logits (batch, classes), labels (batch,); an example weighs 1."""

    def losses(
        self, logits: torch.Tensor, labels: torch.Tensor, reduction: Literal["sum", "none"] = "sum"
    ) -> torch.Tensor:
        """Return the sum over the examples, or each one's loss."""
        return functional.cross_entropy(
            logits.float(), labels, reduction=reduction, label_smoothing=self.label_smoothing
        )


@dataclass(frozen=True)
class Tokens(Objective):
    """The cross-entropy of each target token: logits (batch, tokens, vocabulary), labels (batch, tokens).

    An example weighs as much as it has targets, the labels that are not `IGNORED`.
    """

    def targets(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the token that is to be predicted at each position of the logits, (batch, positions)."""
        return labels

    def losses(
        self, logits: torch.Tensor, labels: torch.Tensor, reduction: Literal["sum", "none"] = "sum"
    ) -> torch.Tensor:
        """Return the sum over the target tokens, or each example's sum."""
        losses = functional.cross_entropy(
            logits.float().view(-1, logits.shape[-1]),
            self.targets(logits, labels).reshape(-1),
            ignore_index=IGNORED,
            reduction=reduction,
            label_smoothing=self.label_smoothing,
        )
        return losses if reduction == "sum" else losses.view(len(labels), -1).sum(1)


@dataclass(frozen=True)
class NextTokens(Tokens):
    """The loss of a causal language model: every position predicts the token after it."""

    def targets(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the labels moved one position on; virtual tokens stand before the text.

        The labels are moved, not the logits: to cut those would copy the largest tensor of the step.
        """
        num_virtual = logits.shape[1] - labels.shape[1]
        return functional.pad(labels, (num_virtual, 1), value=IGNORED)[:, 1:]


@dataclass(frozen=True)
class TargetTokens(Tokens):
    """The loss of an encoder-decoder, whose decoder reads the target one token behind."""

    def logits(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return the logits of the target's tokens, which the model itself moves on for its decoder."""
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
