"""The last layer of an encoder for the one row that its head reads: the other rows would be thrown away."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pewb.anatomy import Anatomy
from pewb.kernels.attention import NAME as CPU_ATTENTION

_LIKE_BERT = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "data2vec-text", "ernie"}
"""Encoders whose layers are BERT's, and whose heads read the first token."""


def compute_read_row(model: Any, anatomy: Anatomy) -> None:
    """Let the last layer of `model` compute the first token's row alone, (batch, 1, hidden), in place; if it is like BERT's.

    Keys and values are those of every token. Given past keys (prefix tuning), the layer computes as it always did.
    """
    if anatomy.model_type not in _LIKE_BERT or not anatomy.is_encoder or getattr(model.config, "is_decoder", False):
        return
    if model.config._attn_implementation not in ("sdpa", CPU_ATTENTION):  # others take masks of another shape
        return
    layer = model.get_submodule(f"{anatomy.top_stack.path}.{anatomy.top_stack.num_layers - 1}")
    layer.forward = MethodType(_first_row, layer)


def _first_row(
    self: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    encoder_hidden_states: torch.Tensor | None = None,
    encoder_attention_mask: torch.Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Return the layer's output for the first token, (batch, 1, hidden)."""
    if past_key_values is not None or encoder_hidden_states is not None:
        output: torch.Tensor = type(self).forward(
            self,
            hidden_states,
            attention_mask,
            encoder_hidden_states,
            encoder_attention_mask,
            past_key_values,
            **kwargs,
        )
        return output
    row = hidden_states[:, :1].contiguous()  # or its products would be taken one example at a time
    attended = _attended(self.attention.self, row, hidden_states, attention_mask, **kwargs)
    done: torch.Tensor = self.feed_forward_chunk(self.attention.output(attended, row))
    return done


def _attended(
    module: Any, row: torch.Tensor, hidden_states: torch.Tensor, mask: torch.Tensor | None, **kwargs: Any
) -> torch.Tensor:
    """Return what the first token sees of all, (batch, 1, hidden), by the model's own attention function."""

    def heads(projected: torch.Tensor) -> torch.Tensor:
        return projected.view(*projected.shape[:-1], -1, module.attention_head_size).transpose(1, 2)

    interface = ALL_ATTENTION_FUNCTIONS[module.config._attn_implementation]
    attended, _ = interface(
        module,
        heads(module.query(row)),
        heads(module.key(hidden_states)),
        heads(module.value(hidden_states)),
        None if mask is None else mask[:, :, :1],
        dropout=module.dropout.p if module.training else 0.0,
        scaling=module.scaling,
        **kwargs,
    )
    output: torch.Tensor = attended.reshape(*row.shape[:-1], -1)
    return output.contiguous()
