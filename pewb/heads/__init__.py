"""How each form of task goes through a model: what stands on top of the backbone reads, costs and says."""

from __future__ import annotations

from collections.abc import Sequence

from pewb.heads.causal_lm import NextTokens
from pewb.heads.chat import ChatTokens
from pewb.heads.choices import LikeliestChoice
from pewb.heads.class_weights import weights_of
from pewb.heads.classes import Classes
from pewb.heads.head import Head, Predicted
from pewb.heads.multi_label import MultiLabel
from pewb.heads.number import Number
from pewb.heads.seq2seq import TargetTokens
from pewb.heads.spans import Spans
from pewb.heads.words import WordClasses
from pewb.recipe import Training
from pewb.tasks import Examples, TaskFamily
from pewb.tasks.text_regression import scale_of

HEADS: dict[str, type[Head]] = {
    "text_classification": Classes,
    "multi_label": MultiLabel,
    "text_regression": Number,
    "token_classification": WordClasses,
    "extractive_qa": Spans,
    "multiple_choice": LikeliestChoice,
    "causal_lm": NextTokens,
    "chat": ChatTokens,
    "seq2seq": TargetTokens,
}


def head_of(
    task: TaskFamily, labels: Sequence[str] = (), training: Training | None = None, examples: Examples | None = None
) -> Head:
    """Return the head of a task with the classes `labels`, trained as `training` says, on `examples` (None: in a plan).

    Raises:
        InputError: `training` weighs classes that the task has not.
    """
    training = training or Training()
    kind = HEADS[task.form]
    weights: tuple[float, ...] = ()
    if training.class_weights is not None:
        weights = weights_of(training.class_weights, labels, examples, are_sets=kind is MultiLabel)
    if kind is Number and examples is not None:
        return Number(task, labels, scale=scale_of(examples.train.labels))
    if kind is Spans and examples is not None:
        return Spans(task, labels, threshold=None if all(examples.train.labels) else 0.0)
    return kind(task, labels, training.label_smoothing, weights)


__all__ = ["HEADS", "Head", "Predicted", "head_of"]
