"""Sequence to sequence: an encoder reads a source, and a decoder writes its target."""

from __future__ import annotations

from typing import ClassVar, Literal

from pewb.tasks.completions import Completions
from pewb.tasks.model_heads import SEQ2SEQ_LM, ModelHead


class Seq2Seq(Completions):
    """The keys of a `task` table with `kind = "seq2seq"`: `prompt` is the source, `completion` the target."""

    kind: Literal["seq2seq"] = "seq2seq"
    prompt: str | int = "prompt"
    """The column with the source, or a text with columns in braces."""

    model_head: ClassVar[ModelHead] = SEQ2SEQ_LM
