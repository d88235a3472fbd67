"""The table of task families: a kind, and the class that holds its keys and its facts."""

from collections.abc import Mapping
from typing import Any

from pewb.tasks.causal_lm import CausalLm
from pewb.tasks.examples import Examples, Split
from pewb.tasks.family import ModelHead, TaskFamily, read_examples
from pewb.tasks.seq2seq import Seq2Seq
from pewb.tasks.text_classification import TextClassification

DEFAULT_KIND = "text_classification"
"""The kind of a table that names none."""

TASKS: dict[str, type[TaskFamily]] = {
    "text_classification": TextClassification,
    "causal_lm": CausalLm,
    "seq2seq": Seq2Seq,
}


def decode_task(keys: Mapping[str, Any]) -> TaskFamily:
    """Return the task that the keys of a catalogue entry or a recipe's table describe."""
    return TASKS[keys.get("kind", DEFAULT_KIND)].model_validate(dict(keys))


def families_judged_by(metric: str | None) -> list[type[TaskFamily]]:
    """Return the families whose main metric is `metric`; a record names the metric alone."""
    return [family for family in TASKS.values() if family.main_metric == metric]


__all__ = [
    "DEFAULT_KIND",
    "TASKS",
    "CausalLm",
    "Examples",
    "ModelHead",
    "Seq2Seq",
    "Split",
    "TaskFamily",
    "TextClassification",
    "decode_task",
    "families_judged_by",
    "read_examples",
]
