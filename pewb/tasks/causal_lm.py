"""Causal language modelling: a text is continued, token by token."""

from __future__ import annotations

from typing import ClassVar, Literal

from pewb.tasks.completions import Completions
from pewb.tasks.family import ModelHead


class CausalLm(Completions):
    """The keys of a `task` table with `kind = "causal_lm"`."""

    kind: Literal["causal_lm"] = "causal_lm"
    prompt: str | int | None = None
    """The column with what is read and not learned; left out: every token of `completion` is learned."""

    model_head: ClassVar[ModelHead] = "causal_lm"
    peft_task_type: ClassVar[str] = "CAUSAL_LM"
