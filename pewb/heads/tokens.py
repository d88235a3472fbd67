"""What the two heads have in common that predict tokens: the loss of a text that is written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pewb.batching import IGNORED, Encoded, Inputs, Tokenised, kept
from pewb.device import moved
from pewb.errors import InputError
from pewb.evaluation.metrics import language_metrics
from pewb.evaluation.tables import Table, loss_table
from pewb.heads.head import Head, Reduction
from pewb.kernels.token_loss import head_input, summed_token_loss, token_losses
from pewb.record import Confusion, Metric
from pewb.tasks import Split


class Tokens(Head):
    """The cross-entropy of each target token; labels are (batch, tokens), and in the host's memory.

    An example weighs as much as it has targets, the labels that are not `IGNORED`. Logits are computed for the positions
    of targets alone, and in pieces.
    """

    def encode(self, tokenizer: Any, split: Split, max_tokens: int, cache: Path | None = None) -> Encoded:
        """Tokenise what is read and what is to be written.

        Raises:
            InputError: no example has a target token within `max_tokens`, or the tokenizer has no end token.
        """

        def make() -> Tokenised:
            return self._tokenised(tokenizer, split, max_tokens)

        told = (
            [tokenizer.chat_template, str(tokenizer.special_tokens_map)] if split.labels else None
        )  # a template may use them
        content = [split.texts, split.labels, told]
        made = kept(cache, tokenizer, content, max_tokens, self.task.form, make)
        labels = made.features["labels"]
        weights = [len(row) - row.count(IGNORED) for row in labels]
        if not any(weights):
            raise InputError(
                f"training.max_tokens: the prompts fill the {max_tokens} tokens, and nothing is left to be learned; raise it"
            )
        lengths = self._lengths(made.features)
        return Encoded(made.features, [], lengths, made.num_cut, weights, split)

    @abstractmethod
    def _tokenised(self, tokenizer: Any, split: Split, max_tokens: int) -> Tokenised:
        """Return the tokens of the split's texts; of texts in several rows, `_example` says whose each is."""

    def _lengths(self, features: Any) -> list[int]:
        return [len(ids) for ids in features["input_ids"]]

    def targets(self, num_positions: int, labels: torch.Tensor) -> torch.Tensor:
        """Return the token that is to be predicted at each of the model's positions, (batch, positions)."""
        return labels

    def losses(self, model: Any, inputs: Inputs, labels: torch.Tensor, reduction: Reduction = "sum") -> torch.Tensor:
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

    def outputs(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return each example's loss, (batch,)."""
        return replace(self, label_smoothing=0.0).losses(model, inputs, labels, "none")  # training alone is smoothed

    def predicted(self, found: Sequence[torch.Tensor], data: Encoded) -> TokenLosses:
        """Return what each example cost."""
        losses, num_tokens = torch.stack(list(found)), torch.tensor([int(weight) for weight in data.weights])
        if "_example" in data.features.column_names:
            owners = torch.tensor(data.features["_example"][:])
            losses = losses.new_zeros(len(data.split)).index_add_(0, owners, losses)
            num_tokens = num_tokens.new_zeros(len(data.split)).index_add_(0, owners, num_tokens)
        return TokenLosses(losses, num_tokens.tolist())

    def blank_labels(self, num_rows: int, num_tokens: int, device: torch.device) -> torch.Tensor:
        """Return tokens, (rows, tokens), in the host's memory: which of them are targets is read."""
        return torch.zeros(num_rows, num_tokens, dtype=torch.long, device="cpu")


@dataclass(frozen=True)
class TokenLosses:
    """What each example of a language model's split cost, in the split's order."""

    losses: torch.Tensor
    """(examples,), the sum over the example's target tokens, in nats, float32."""
    num_tokens: list[int]
    """The target tokens of each example."""

    def metrics(self) -> dict[str, Metric]:
        """Return the loss per token and the perplexity, with their intervals."""
        return language_metrics(self.losses.tolist(), self.num_tokens)

    def confusion(self) -> Confusion | None:
        """Return none: there are no classes."""
        return None

    def warnings(self) -> list[str]:
        """Return a warning if examples have no target token, and so count for nothing."""
        without = self.num_tokens.count(0)
        return (
            [f"{without} of {len(self.num_tokens)} test examples have no target within max_tokens"] if without else []
        )

    def table(self) -> Table:
        """Return each example's loss and number of target tokens."""
        return loss_table(self.losses.tolist(), self.num_tokens)
