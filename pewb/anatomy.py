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
    "query": ("query", "query_proj", "q_proj", "q_b_proj", "q_gate_proj", "q_lin", "Attention.q", "attn.q"),
    "key": ("key", "key_proj", "k_proj", "k_lin", "Attention.k", "attn.k"),
    "value": ("value", "value_proj", "v_proj", "v_lin", "Attention.v", "attn.v"),
    "qkv": (
        "c_attn",
        "query_key_value",
        "qkv_proj",
        "Wqkv",
        "qkv",
        "attention.self.in_proj",
        "kv_b_proj",
        "in_proj_qkv",
        "in_proj_qkvz",
    ),
    "attention_output": (
        "attention.output.dense",
        "self_attention.dense",
        "self_attn.dense",
        "self_attn.output",
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
    "up": (
        "intermediate.dense",
        "up_proj",
        "gate_up_proj",
        "c_fc",
        "fc1",
        "fc_in",
        "lin1",
        "wi",
        "wi_1",
        "dense_h_to_4h",
        "Wi",
        "ffn",
    ),
    "down": (
        "output.dense",
        "down_proj",
        "mlp.c_proj",
        "fc2",
        "fc_out",
        "lin2",
        "DenseReluDense.wo",
        "dense_4h_to_h",
        "mlp.Wo",
        "ffn_output",
    ),
}
"""How architectures call each site; the longest suffix that matches a linear layer's name names its site.

`qkv` is any projection that computes several of query, key and value at once.
"""

_FUSED_IN_QKV = ("query", "key", "value")

_NORM = re.compile(r"(?i)norm|^ln(_|\d|$)")
"""How architectures call their normalisation layers."""

_OTHER_SENSES = re.compile(r"(^|\.)(vision|visual|audio)")
"""Parts of a multi-modal model that text never reaches."""

_READ_AT_LAST_TOKEN = {"modernbert-decoder"}
"""Decoders whose head is not called `score`."""


_LANGUAGE_MODELS = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
"""What PEFT calls models without a new head."""


@dataclass(frozen=True)
class Stack:
    """A run of equal layers, such as `bert.encoder.layer`."""

    path: str
    num_layers: int


@dataclass(frozen=True)
class Anatomy:
    """The named parts of one model."""

    model_type: str
    base: str
    """The name under which the model keeps its backbone, beside the head; empty where it keeps the parts as its own."""
    stacks: tuple[Stack, ...]
    """Input side first: an encoder-decoder has two."""
    head: tuple[str, ...]
    """Modules trained under every strategy: the classifier, and a pooler where the classifier reads it.

    A language model has none: what it predicts tokens with is pre-trained, and part of its backbone.
    """
    site_modules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Full module names for each site that the model has."""
    norms: tuple[str, ...] = ()
    """The backbone's normalisation layers that have weights."""
    biases: tuple[str, ...] = ()
    """The backbone's bias parameters, without a pooler's that belongs to the head."""
    is_encoder: bool = True
    """Whether the first token ([CLS]) is what the head reads."""
    is_encoder_decoder: bool = False
    takes_past: bool = True
    """Whether its layers take past keys and values."""
    peft_task_type: str = "SEQ_CLS"
    """What PEFT calls a model with this head."""
    backbone: tuple[str, ...] = ()
    """The model's own children that make up the backbone: all that is not head."""
    output: tuple[str, ...] = ()
    """The projection onto the vocabulary of a language model, often tied to the embeddings; it is never quantised."""
    has_conv1d: bool = False
    """Whether its projections are transformers' `Conv1D` (GPT-2), whose weights are stored the other way round."""

    @property
    def is_language_model(self) -> bool:
        """Whether it predicts tokens, by what it was pre-trained with, and has no new head."""
        return self.peft_task_type in _LANGUAGE_MODELS

    @property
    def reads_every_token(self) -> bool:
        """Whether the head says something of every token, not of the text as a whole."""
        return self.peft_task_type != "SEQ_CLS"

    @cached_property
    def top_stack(self) -> Stack:
        """The stack that the head reads from (the decoder, where there are two)."""
        return self.stacks[-1]

    def modules(self, sites: Iterable[str]) -> list[str]:
        """Return the full names of the modules at `sites`.

        Where a block computes query, key and value in one projection, that projection stands for each of them.

        Raises:
            RefusedError: a site that this architecture does not have.
        """
        found: dict[str, None] = {}
        for site in sites:
            names = [*self.site_modules.get(site, ()), *self._fused_modules(site)]
            if not names:
                allowed = [name for name in SITE_SUFFIXES if name in self.site_modules]
                raise RefusedError(
                    f"strategy.targets: the site '{site}' matches nothing in a {self.model_type}"
                    f" model{nearest(site, allowed)}; it has {', '.join(allowed) or 'no site that pewb knows'}"
                )
            found.update(dict.fromkeys(names))
        return list(found)

    def feed_forwards(self) -> list[tuple[str, str]]:
        """Return for each feed-forward the module that its input enters and the one that its output leaves.

        Raises:
            RefusedError: an architecture in which they can't be paired.
        """
        entrances, exits = self.modules(["up"]), self.modules(["down"])
        if [_layer(name) for name in entrances] != [_layer(name) for name in exits]:
            raise RefusedError(f"pewb can't tell where the feed-forwards of a {self.model_type} model begin and end")
        return list(zip(entrances, exits, strict=True))

    def fused(self, sites: Iterable[str]) -> list[str]:
        """Return those of `sites` that this architecture has, somewhere, only inside one fused projection."""
        return [site for site in sites if self._fused_modules(site)]

    def _fused_modules(self, site: str) -> list[str]:
        """Return the fused projections of the blocks that have no projection of their own for `site`."""
        if site not in _FUSED_IN_QKV:
            return []
        blocks = {_parent(name) for name in self.site_modules.get(site, ())}
        return [name for name in self.site_modules.get("qkv", ()) if _parent(name) not in blocks]

    def layer_modules(self, num_top_layers: int) -> list[str]:
        """Return the names of the last `num_top_layers` layers below the head.

        XLM keeps a layer's attention and its feed-forward part in two lists side by side; both are returned.
        """
        top = self.top_stack
        beside = [stack.path for stack in self.stacks if _parent(stack.path) == _parent(top.path)]
        layers = range(top.num_layers - num_top_layers, top.num_layers)
        return [f"{path}.{index}" for index in layers for path in beside]


def _parent(module: str) -> str:
    return module.rpartition(".")[0]


def _own_name(module: str) -> str:
    """Return what `module` is called, or the list that it is in (XLM keeps its norms in lists)."""
    return re.sub(r"(\.\d+)+$", "", module).rpartition(".")[2]


def _layer(module: str) -> str:
    """Return the layer that holds `module`: its name up to the first number."""
    return re.match(r".*?\.\d+(?=\.)|", module)[0]  # type: ignore[index]


def _site_of(module: str) -> str | None:
    matches = [
        (len(suffix), site)
        for site, suffixes in SITE_SUFFIXES.items()
        for suffix in suffixes
        if module == suffix
        or module.endswith(("." + suffix, suffix if suffix.startswith("Attention") else "." + suffix))
    ]
    return max(matches)[1] if matches else None


def anatomy_of(config: Any, parameter_names: Iterable[str], base: str, peft_task_type: str = "SEQ_CLS") -> Anatomy:
    """Return the anatomy of a model with `config`, told from the names of its parameters.

    Args:
        config: the transformers configuration (its `model_type` and what it says of its kind).
        parameter_names: as `named_parameters` gives them, before any strategy is applied.
        base: the name under which the model keeps its backbone (`base_model_prefix`), empty if it has no such part.
        peft_task_type: what PEFT calls a model with its head; a language model has no new head.

    Raises:
        RefusedError: no stack of layers can be told from the names.
    """
    names = list(parameter_names)
    sizes: dict[str, int] = {}
    sites: dict[str, dict[str, None]] = {}
    for name in names:
        match = re.match(r"(.+?)\.(\d+)\.(.+)\.weight$", name)
        site = _site_of(match[3]) if match else None
        if match is None or site is None or _OTHER_SENSES.search(name):
            continue
        stack, index = match[1], int(match[2])
        sizes[stack] = max(sizes.get(stack, 0), index + 1)
        sites.setdefault(site, {})[name.removesuffix(".weight")] = None
    has_new_head = peft_task_type not in _LANGUAGE_MODELS
    head = _head_of(names, base) if has_new_head else []
    if not sizes or (has_new_head and not head):
        raise RefusedError(
            f"pewb can't tell the {'head' if sizes else 'layers'} of a '{config.model_type}' model;"
            " name another backbone (pewb list backbones)"
        )
    within = [
        name
        for name in names
        if name.startswith(base + "." if base else "")
        and not name.startswith(tuple(part + "." for part in head))
        and not _OTHER_SENSES.search(name)
    ]
    norms = [module for module in map(_parent, within) if _NORM.search(_own_name(module))]
    encoder_decoder = bool(getattr(config, "is_encoder_decoder", False))
    reads_last = "score" in head or config.model_type in _READ_AT_LAST_TOKEN
    return Anatomy(
        model_type=config.model_type,
        base=base,
        stacks=tuple(Stack(path, count) for path, count in sizes.items()),
        head=tuple(head),
        site_modules={site: tuple(modules) for site, modules in sites.items()},
        norms=tuple(dict.fromkeys(norms)),
        biases=tuple(name for name in within if name.endswith(".bias")),
        is_encoder=peft_task_type == "SEQ_CLS" and not encoder_decoder and not reads_last,
        is_encoder_decoder=encoder_decoder,
        peft_task_type=peft_task_type,
        backbone=(base,) if has_new_head else tuple(dict.fromkeys(name.partition(".")[0] for name in names)),
    )


def _head_of(names: list[str], base: str) -> list[str]:
    """Return the modules outside the backbone, and its pooler if their one linear layer reads it.

    A head that has a dense layer of its own (BigBird's) reads the hidden states, and the pooler is unused.
    """
    outside = [name for name in names if name.partition(".")[0] != base]
    head = list(dict.fromkeys(name.partition(".")[0] for name in outside))
    is_one_layer = all(name.count(".") == 1 for name in outside) and len(head) == 1
    has_pooler = any(name.startswith(f"{base}.pooler.") for name in names)
    return [f"{base}.pooler", *head] if has_pooler and is_one_layer else head


_POSITIONS_START_AFTER_PADDING = {
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
_POSITION_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")


def longest_input(config: Mapping[str, Any]) -> int | None:
    """Return the number of tokens that a model with this `config.json` can read, or None without a limit.

    RoBERTa's family numbers its positions from `pad_token_id + 1`, so it reads fewer than its table holds.
    """
    config = config.get("text_config") or config
    # T5's `n_positions` is no table, but MPNet has a table beside its relative positions.
    keys = _POSITION_KEYS[:1] if config.get("relative_attention_num_buckets") else _POSITION_KEYS
    limit = next((config[key] for key in keys if isinstance(config.get(key), int)), None)
    if limit is not None and config.get("model_type") in _POSITIONS_START_AFTER_PADDING:
        padding = config.get("pad_token_id")
        return int(limit) - (1 if padding is None else int(padding)) - 1
    return limit
