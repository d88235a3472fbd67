"""Sequence to sequence: an encoder reads a source, and a decoder writes its target."""

from __future__ import annotations

from typing import ClassVar, Literal

from pewb.tasks.completions import Completions
from pewb.tasks.family import ModelHead


class Seq2Seq(Completions):
    """The keys of a `task` table with `kind = "seq2seq"`: `prompt` is the source, `completion` the target."""

    kind: Literal["seq2seq"] = "seq2seq"
    prompt: str | int = "prompt"
    """The column with the source."""

    model_head: ClassVar[ModelHead] = "seq2seq_lm"
    peft_task_type: ClassVar[str] = "SEQ_2_SEQ_LM"
