"""Where the parts of a transformer are: canonical site names for every architecture, layers, head.

Everything is read off the names of a model's parameters, so that a model with weights, a virtual one and a quantised
one have the same anatomy, and nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pewb.errors import RefusedError, nearest

SITE_SUFFIXES: dict[str, tuple[str, ...]] = {
    "query": ("query", "query_proj", "q_proj", "q_lin", "Attention.q", "attn.q"),
    "key": ("key", "key_proj", "k_proj", "k_lin", "Attention.k", "attn.k"),
    "value": ("value", "value_proj", "v_proj", "v_lin", "Attention.v", "attn.v"),
    "qkv": ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "qkv"),
    "attention_output": (
        "attention.output.dense",
        "self_attention.dense",
        "attention.dense",
        "o_proj",
        "out_proj",
        "attn.c_proj",
        "out_lin",
        "Attention.o",
        "attn.Wo",
        "attn.o",
    ),
    "gate": ("gate_proj", "wi_0"),
    "up": ("intermediate.dense", "up_proj", "gate_up_proj", "c_fc", "fc1", "lin1", "wi", "wi_1", "dense_h_to_4h", "Wi"),
    "down": ("output.dense", "down_proj", "mlp.c_proj", "fc2", "lin2", "DenseReluDense.wo", "dense_4h_to_h", "mlp.Wo"),
}
"""How architectures call each site; the longest suffix that matches a linear layer's name names its site."""

_FUSED_INTO = {"query": "qkv", "key": "qkv", "value": "qkv"}


@dataclass(frozen=True)
class Stack:
    """A run of equal layers, such as `bert.encoder.layer`."""

    path: str
    num_layers: int


@dataclass(frozen=True)
class Anatomy:
    """The named parts of one model."""

    model_type: str
    stacks: tuple[Stack, ...]
    """Input side first: an encoder-decoder has two."""
    head: tuple[str, ...]
    """Modules trained under every strategy: the classifier, and a pooler where the classifier reads it."""
    site_modules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Full module names for each site that the model has."""
    is_encoder: bool = True
    """Whether the first token ([CLS]) is what the head reads."""
    is_encoder_decoder: bool = False

    @cached_property
    def top_stack(self) -> Stack:
        """The stack that the head reads from (the decoder, where there are two)."""
        return self.stacks[-1]

    def modules(self, sites: Iterable[str]) -> list[str]:
        """Return the full names of the modules at `sites`, in the model's order.

        Where an architecture computes query, key and value in one projection, that projection stands for each of them.

        Raises:
            RefusedError: a site that this architecture does not have.
        """
        found: dict[str, None] = {}
        for site in sites:
            names = self.site_modules.get(site) or self.site_modules.get(_FUSED_INTO.get(site, ""))
            if not names:
                allowed = [name for name in SITE_SUFFIXES if name in self.site_modules]
                raise RefusedError(
                    f"strategy.targets: the site '{site}' matches nothing in a {self.model_type} model{nearest(site, allowed)};"
                    f" it has {', '.join(allowed) or 'no site that pewb knows'}"
                )
            found.update(dict.fromkeys(names))
        return list(found)

    def fused(self, sites: Iterable[str]) -> list[str]:
        """Return those of `sites` that this architecture has only inside one fused projection."""
        return [site for site in sites if site not in self.site_modules and _FUSED_INTO.get(site) in self.site_modules]

    def layer_modules(self, num_top_layers: int) -> list[str]:
        """Return the names of the last `num_top_layers` layers below the head."""
        stack = self.top_stack
        return [f"{stack.path}.{index}" for index in range(stack.num_layers - num_top_layers, stack.num_layers)]


def _site_of(module: str) -> str | None:
    matches = [
        (len(suffix), site)
        for site, suffixes in SITE_SUFFIXES.items()
        for suffix in suffixes
        if module == suffix
        or module.endswith(("." + suffix, suffix if suffix.startswith("Attention") else "." + suffix))
    ]
    return max(matches)[1] if matches else None


def anatomy_of(config: Any, parameter_names: Iterable[str], base: str) -> Anatomy:
    """Return the anatomy of a model with `config`, told from the names of its parameters.

    Args:
        config: the transformers configuration (its `model_type` and what it says of its kind).
        parameter_names: as `named_parameters` gives them, before any strategy is applied.
        base: the name under which the model keeps its backbone (`base_model_prefix`).

    Raises:
        RefusedError: no stack of layers can be told from the names.
    """
    names = list(parameter_names)
    sizes: dict[str, int] = {}
    sites: dict[str, dict[str, None]] = {}
    for name in names:
        match = re.match(r"(.+?)\.(\d+)\.(.+)\.weight$", name)
        if not match:
            continue
        stack, index, inner = match[1], int(match[2]), match[3]
        site = _site_of(inner)
        if site is None:
            continue
        sizes[stack] = max(sizes.get(stack, 0), index + 1)
        sites.setdefault(site, {})[name.removesuffix(".weight")] = None
    if not sizes:
        raise RefusedError(
            f"pewb can't tell the layers of a '{config.model_type}' model; name another backbone (pewb list backbones)"
        )
    inside = tuple(sizes)
    head: dict[str, None] = {}
    for name in names:
        top, _, rest = name.partition(".")
        if top != base and not any(stack.startswith(top + ".") or stack == top for stack in inside):
            head[top] = None
        elif rest.startswith("pooler."):
            head[f"{top}.pooler"] = None
    encoder_decoder = bool(getattr(config, "is_encoder_decoder", False))
    return Anatomy(
        model_type=config.model_type,
        stacks=tuple(Stack(path, count) for path, count in sizes.items()),
        head=tuple(head),
        site_modules={site: tuple(modules) for site, modules in sites.items()},
        is_encoder=not encoder_decoder and not _reads_last_token(names),
        is_encoder_decoder=encoder_decoder,
    )


def _reads_last_token(parameter_names: list[str]) -> bool:
    """Return whether the head reads the last token: decoders in transformers call that head `score`."""
    return any(name.split(".")[0] == "score" for name in parameter_names)


_OFFSET_POSITIONS = {
    "roberta",
    "xlm-roberta",
    "camembert",
    "xlm-roberta-xl",
    "roberta-prelayernorm",
    "data2vec-text",
    "longformer",
    "mpnet",
}
_POSITION_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length")


def longest_input(config: Mapping[str, Any]) -> int | None:
    """Return the number of tokens that a model with this `config.json` can read, or None without a limit.

    RoBERTa's family numbers its positions from `pad_token_id + 1`, so it reads fewer than its table holds.
    """
    if config.get("relative_attention_num_buckets"):
        return None
    limit = next((config[key] for key in _POSITION_KEYS if isinstance(config.get(key), int)), None)
    if limit is not None and config.get("model_type") in _OFFSET_POSITIONS:
        return int(limit) - int(config.get("pad_token_id") or 1) - 1
    return limit
