"""A piece of a text that answers a question: logits of start and end for each token, (batch, tokens, 2); labels (batch, 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from pewb.batching import Encoded, Inputs, Tokenised, kept
from pewb.errors import InputError
from pewb.evaluation.answers import exact_match, word_f1
from pewb.evaluation.intervals import proportion, ratio
from pewb.evaluation.tables import Table, answers_table
from pewb.heads.head import Head, Predicted, Reduction
from pewb.heads.texts import see_offsets, separates_pairs
from pewb.record import Confusion, Metric
from pewb.tasks import ExtractiveQa, Split
from pewb.tasks.extractive_qa import Answers

_LONGEST_ANSWER = 30
_NEW = 2
"""Tokens of a context that are in no window before, at least."""
_WITHOUT_ANSWER = 0
"""The token that stands for no answer: [CLS], or whatever comes first."""


@dataclass(frozen=True)
class Spans(Head):
    """The mean of the cross-entropies of where the answer starts and ends, over the tokens of a window (Devlin et al. 2019).

    A text that is too long becomes several windows that overlap, each a row; one without the answer is to point to its
    first token. The answer is the likeliest span of all windows, or none, where its score is lower by more than
    `threshold` than that of no answer. Where every question of training has an answer, one is always given.
    """

    threshold: float | None = None
    """None: an answer is always given."""

    def encode(self, tokenizer: Any, split: Split, max_tokens: int, cache: Path | None = None) -> Encoded:
        """Tokenise the questions with each window of their contexts.

        Raises:
            InputError: the tokenizer does not say which characters a token stands for, or rows are too short.
        """
        see_offsets(tokenizer, "answers")
        stride = self._stride(tokenizer, max_tokens)
        content = [stride, split.texts, split.labels]

        def make() -> Tokenised:
            return _tokenised(tokenizer, split, max_tokens, stride)

        made = kept(cache, tokenizer, content, max_tokens, self.task.form, make)
        lengths = [len(ids) for ids in made.features["input_ids"]]
        labels = list(zip(made.features["_start"], made.features["_end"], strict=True))
        return Encoded(made.features, labels, lengths, made.num_cut, [1] * len(lengths), split)

    def _stride(self, tokenizer: Any, max_tokens: int) -> int:
        """Return how many tokens windows share: as many as are asked for, or a third of a row, as far as any question allows.

        Raises:
            InputError: a context would have no room.
        """
        assert isinstance(self.task, ExtractiveQa)
        num_special = tokenizer.num_special_tokens_to_add(pair=True)
        room = max_tokens - max_tokens // 2 - num_special - _NEW
        if room < 0:
            raise InputError(
                f"training.max_tokens: {max_tokens} leave no room for a context beside its question; allowed: from"
                f" {2 * (num_special + _NEW)} on"
            )
        return min(max_tokens // 3, room) if self.task.stride is None else self.task.stride

    def logits(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return what `model` says of each token of the text; virtual ones stand before them."""
        output = model(**inputs)
        num_tokens = inputs["input_ids"].shape[1]
        return torch.stack([output.start_logits, output.end_logits], -1)[:, -num_tokens:]

    def losses(self, model: Any, inputs: Inputs, labels: torch.Tensor, reduction: Reduction = "sum") -> torch.Tensor:
        """Return the sum over the windows, or each one's loss."""
        logits = self._masked(self.logits(model, inputs, labels), inputs)
        losses = functional.cross_entropy(logits, labels, reduction="none").mean(1)
        return losses.sum() if reduction == "sum" else losses

    @staticmethod
    def _masked(logits: torch.Tensor, inputs: Inputs) -> torch.Tensor:
        """Return logits in float32, of padding as low as can be."""
        padding = inputs["attention_mask"][..., None] == 0
        return logits.float().masked_fill(padding, torch.finfo(torch.float32).min / 2)

    def outputs(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return the logits of start and end, (batch, tokens, 2)."""
        return self._masked(self.logits(model, inputs, labels), inputs)

    def predicted(self, found: Sequence[torch.Tensor], data: Encoded) -> SpanPredictions:
        """Return the best span of each question's windows."""
        assert isinstance(self.task, ExtractiveQa)
        longest = self.task.longest_answer or _LONGEST_ANSWER
        count = len(data.split)
        best, without = np.full(count, -np.inf), np.full(count, np.inf)
        texts = [""] * count
        columns = [data.features[name] for name in ("_question", "_first", "_starts", "_ends")]
        for logits, question, first, starts, ends in zip(found, *columns, strict=True):
            without[question] = min(without[question], float(logits[_WITHOUT_ANSWER].sum()))
            if not starts:
                continue
            of_context = logits[first : first + len(starts)]
            scores = (of_context[:, :1] + of_context[:, 1]).numpy()
            scores[~np.tri(len(starts), len(starts), longest - 1, dtype=bool)] = -np.inf
            scores[np.tri(len(starts), len(starts), -1, dtype=bool)] = -np.inf
            start, end = divmod(int(scores.argmax()), len(starts))
            if scores[start, end] > best[question]:
                best[question] = scores[start, end]
                texts[question] = data.split.texts[question][1][starts[start] : ends[end]]
        doubts = np.nan_to_num(
            without - best, posinf=float(np.finfo(np.float32).max)
        )  # where no token could be an answer
        return SpanPredictions(texts, doubts, data.split.labels, self.threshold)

    def calibrated(self, predicted: Predicted) -> Spans:
        """Return the head with the threshold that is best for `predicted`, of the validation split."""
        assert isinstance(predicted, SpanPredictions)
        return self if self.threshold is None else replace(self, threshold=predicted.best_threshold())

    @property
    def is_calibrated(self) -> bool:
        """Whether there is a threshold to be chosen."""
        return self.threshold is not None

    @property
    def constants(self) -> dict[str, float]:
        """The doubt up to which an answer is given."""
        return {} if self.threshold is None else {"no_answer_threshold": self.threshold}

    def blank_labels(self, num_rows: int, num_tokens: int, device: torch.device) -> torch.Tensor:
        """Return start and end, (rows, 2)."""
        return torch.zeros(num_rows, 2, dtype=torch.long, device=device)


def _tokenised(tokenizer: Any, split: Split, max_tokens: int, stride: int) -> Tokenised:
    """Return a row for each window; a question of more than half of `max_tokens` is cut."""
    from datasets import Dataset

    questions, num_cut = _shortened(tokenizer, [texts[0] for texts in split.texts], max_tokens // 2)
    if not separates_pairs(tokenizer):  # as of other pairs, nothing would stand between them
        questions = [f"{question}\n" for question in questions]
    taken = max(map(len, tokenizer(questions, add_special_tokens=False, split_special_tokens=True)["input_ids"]))
    room = max_tokens - taken - tokenizer.num_special_tokens_to_add(pair=True) - _NEW
    if stride > room:
        raise InputError(
            f"task.stride: {stride} of {max_tokens} tokens leave nothing new for a window beside a question of {taken};"
            f" allowed: up to {room}, or raise training.max_tokens"
        )
    side, tokenizer.truncation_side = tokenizer.truncation_side, "right"
    encoding = tokenizer(
        questions,
        [texts[1] for texts in split.texts],
        truncation="only_second",
        max_length=max_tokens,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        split_special_tokens=True,
    )
    tokenizer.truncation_side = side
    inputs = [name for name in encoding if name in ("input_ids", "attention_mask", "token_type_ids")]
    columns: dict[str, list[Any]] = {name: list(encoding[name]) for name in inputs}
    columns |= {name: [] for name in ("_question", "_first", "_starts", "_ends", "_start", "_end")}
    for row, question in enumerate(encoding["overflow_to_sample_mapping"]):
        places = [place for place, part in enumerate(encoding.sequence_ids(row)) if part == 1]
        offsets = [encoding["offset_mapping"][row][place] for place in places]
        first = places[0] if places else 0
        start, end = _tokens_of(split.labels[question], offsets)
        columns["_question"].append(question)
        columns["_first"].append(first)
        columns["_starts"].append([one for one, _ in offsets])
        columns["_ends"].append([one for _, one in offsets])
        columns["_start"].append(_WITHOUT_ANSWER if start is None else first + start)
        columns["_end"].append(_WITHOUT_ANSWER if end is None else first + end)
    return Tokenised(Dataset.from_dict(columns), num_cut)


def _shortened(tokenizer: Any, questions: Sequence[str], max_tokens: int) -> tuple[list[str], int]:
    """Return each question's beginning, of at most so many tokens, and how many were longer."""
    encoding = tokenizer(
        list(questions), add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True
    )
    short, num_cut = [], 0
    for question, offsets in zip(questions, encoding["offset_mapping"], strict=True):
        is_long = len(offsets) > max_tokens - 1  # one for the line's end
        num_cut += is_long
        short.append(question[: offsets[max_tokens - 2][1]] if is_long else question)
    return short, num_cut


def _tokens_of(answers: Answers, offsets: Sequence[tuple[int, int]]) -> tuple[int | None, int | None]:
    """Return the first and the last token of the first answer, if the window holds all of it."""
    if not answers or not offsets:
        return None, None
    begin, end = answers[0][0], answers[0][0] + len(answers[0][1])
    if offsets[0][0] > begin or offsets[-1][1] < end:
        return None, None
    # Of a character that is several tokens, as in byte-level vocabularies, each has the whole character's place.
    first = min((place for place, (_, stop) in enumerate(offsets) if stop > begin), default=None)
    last = max((place for place, (start, _) in enumerate(offsets) if start < end), default=None)
    return (first, last) if first is not None and last is not None and first <= last else (None, None)


@dataclass(frozen=True)
class SpanPredictions:
    """What a model answers to each question, in the split's order."""

    spans: list[str]
    """The best span of each."""
    doubts: np.ndarray
    """By how much no answer scores higher than the best span, (questions,)."""
    answers: Sequence[Answers]
    threshold: float | None
    """No answer is given where there is more doubt; None: one is always given."""

    @property
    def _accepted(self) -> list[list[str]]:
        return [[text for _, text in answers] for answers in self.answers]

    @property
    def has_unanswerable(self) -> bool:
        """Whether some question has no answer."""
        return any(not answers for answers in self.answers)

    @property
    def predicted(self) -> list[str]:
        """The answers that are given; empty: there is none."""
        if self.threshold is None:
            return self.spans
        return [
            "" if doubt > self.threshold else span for span, doubt in zip(self.spans, self.doubts.tolist(), strict=True)
        ]

    def metrics(self) -> dict[str, Metric]:
        """Return F1 and exact matches, and both for questions with and without an answer, where there are both."""
        exact, f1 = self._scores(self.predicted)
        metrics = {"f1": ratio(f1, np.ones(len(f1))), "exact_match": proportion(int(exact.sum()), len(exact))}
        if not self.has_unanswerable:
            return metrics
        with_answer = np.array([bool(answers) for answers in self.answers])
        for name, chosen in (("answerable", with_answer), ("unanswerable", ~with_answer)):
            if chosen.any():
                metrics[f"f1({name})"] = ratio(f1[chosen], np.ones(int(chosen.sum())))
        return metrics

    def _scores(self, predicted: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        pairs = list(zip(predicted, self._accepted, strict=True))
        return np.array([exact_match(*pair) for pair in pairs]), np.array([word_f1(*pair) for pair in pairs])

    def best_threshold(self) -> float | None:
        """Return the doubt up to which to answer, with which F1 is the greatest (as SQuAD 2.0's script finds it)."""
        if not self.has_unanswerable:
            return self.threshold  # to answer always is best here, and says nothing of other questions
        _, with_span = self._scores(self.spans)
        _, with_none = self._scores([""] * len(self.spans))
        order = np.argsort(self.doubts, kind="stable")
        gains = np.concatenate([[0.0], np.cumsum((with_span - with_none)[order])])
        count = int(gains.argmax())
        if count == 0:
            return float(self.doubts[order[0]]) - 1.0
        here = float(self.doubts[order[count - 1]])
        return (here + float(self.doubts[order[count]])) / 2 if count < len(order) else here

    def confusion(self) -> Confusion | None:
        """Return none: there are no classes."""
        return None

    def warnings(self) -> list[str]:
        """Return a warning if no question was answered, or every one the same."""
        told = set(self.predicted)
        if len(told) > 1:
            return []
        return ["answers no question"] if told == {""} else [f"answers every question with '{told.pop()[:60]}'"]

    def table(self) -> Table:
        """Return each question's answer, and the one predicted."""
        exact, f1 = self._scores(self.predicted)
        return answers_table(self._accepted, self.predicted, exact.tolist(), f1.tolist())
