"""The table of task families: a kind, and the class that holds its keys and its facts."""

from collections.abc import Mapping
from typing import Any

from pewb.tasks.causal_lm import CausalLm
from pewb.tasks.examples import Examples, Split
from pewb.tasks.extractive_qa import ExtractiveQa
from pewb.tasks.family import TaskFamily, read_examples
from pewb.tasks.metrics import greater_is_better, needs_new_head
from pewb.tasks.model_heads import ModelHead
from pewb.tasks.multiple_choice import MultipleChoice
from pewb.tasks.seq2seq import Seq2Seq
from pewb.tasks.text_classification import TextClassification
from pewb.tasks.text_regression import TextRegression
from pewb.tasks.token_classification import TokenClassification

DEFAULT_KIND = "text_classification"
"""The kind of a table that names none."""

TASKS: dict[str, type[TaskFamily]] = {
    "text_classification": TextClassification,
    "text_regression": TextRegression,
    "token_classification": TokenClassification,
    "extractive_qa": ExtractiveQa,
    "multiple_choice": MultipleChoice,
    "causal_lm": CausalLm,
    "seq2seq": Seq2Seq,
}


def decode_task(keys: Mapping[str, Any]) -> TaskFamily:
    """Return the task that the keys of a catalogue entry or a recipe's table describe."""
    return TASKS[keys.get("kind", DEFAULT_KIND)].model_validate(dict(keys))


__all__ = [
    "DEFAULT_KIND",
    "TASKS",
    "CausalLm",
    "Examples",
    "ExtractiveQa",
    "ModelHead",
    "MultipleChoice",
    "Seq2Seq",
    "Split",
    "TaskFamily",
    "TextClassification",
    "TextRegression",
    "TokenClassification",
    "decode_task",
    "greater_is_better",
    "needs_new_head",
    "read_examples",
]
