"""A class for each word: logits (batch, tokens, classes), labels (batch, tokens) at the first token of each word."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from pewb.batching import IGNORED, Encoded, Inputs, Tokenised, kept
from pewb.device import moved
from pewb.evaluation.metrics import confusion, tag_metrics
from pewb.evaluation.tables import Table, tags_table
from pewb.heads.head import Head, Reduction
from pewb.heads.texts import see_offsets
from pewb.record import Confusion, Metric
from pewb.tasks import Split
from pewb.tasks.token_classification import OUTSIDE

Words = tuple[str, ...]


class WordClasses(Head):
    """The cross-entropy of each word's class, which is read at the word's first token.

    A sentence that is too long becomes several rows; no word of it is lost. A row weighs as much as it has words, or as
    their classes do.
    """

    def encode(self, tokenizer: Any, split: Split, max_tokens: int, cache: Path | None = None) -> Encoded:
        """Tokenise the sentences, and put each word's class where its first token is.

        Raises:
            InputError: the tokenizer does not say which characters a token stands for.
        """
        see_offsets(tokenizer, "the tags of words")
        content = [[words, tags] for words, tags in zip(split.texts, split.labels, strict=True)]

        def make() -> Tokenised:
            return _tokenised(tokenizer, split.texts, split.labels, max_tokens)

        made = kept(cache, tokenizer, content, max_tokens, self.task.form, make)
        lengths = [len(ids) for ids in made.features["input_ids"]]
        weights = [self._weight(labels) for labels in made.features["labels"]]
        return Encoded(made.features, [], lengths, made.num_cut, weights, split)

    def _weight(self, labels: Sequence[int]) -> float:
        told = [label for label in labels if label != IGNORED]
        return sum(self.class_weights[label] for label in told) if self.class_weights else len(told)

    def losses(self, model: Any, inputs: Inputs, labels: torch.Tensor, reduction: Reduction = "sum") -> torch.Tensor:
        """Return the sum over the words, or over those of each row."""
        logits = self._of_tokens(model, inputs, labels)
        told = moved(labels, logits.device)
        weights = torch.tensor(self.class_weights, device=logits.device) if self.class_weights else None
        losses = functional.cross_entropy(
            logits.transpose(1, 2),
            told,
            weight=weights,
            ignore_index=IGNORED,
            reduction=reduction,
            label_smoothing=self.label_smoothing,
        )
        return losses if reduction == "sum" else losses.sum(1)

    def outputs(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return the most probable class of each token, (batch, tokens), as a float; NaN where the logits are no numbers."""
        logits = self._of_tokens(model, inputs, labels)
        return logits.argmax(-1).float() + 0 * logits.sum(-1)

    def _of_tokens(self, model: Any, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """Return the logits of the text's own tokens; virtual ones stand before them."""
        return self.logits(model, inputs, labels)[:, -labels.shape[1] :].float()

    def predicted(self, found: Sequence[torch.Tensor], data: Encoded) -> TagPredictions:
        """Return the tags of each sentence; a word of which the tokenizer made no token is outside of everything."""
        outside = list(self.labels).index(OUTSIDE) if OUTSIDE in self.labels else 0
        tags = [[outside] * len(words) for words in data.split.texts]
        rows = zip(found, data.features["labels"], data.features["_sentence"], data.features["_words"], strict=True)
        for classes, labels, sentence, words in rows:
            first = [place for place, label in enumerate(labels) if label != IGNORED]
            for word, tag in zip(words, classes[first].tolist(), strict=True):
                tags[sentence][word] = int(tag)
        return TagPredictions(tags, data.split.labels, self.labels)

    def blank_labels(self, num_rows: int, num_tokens: int, device: torch.device) -> torch.Tensor:
        """Return a class for each token, (rows, tokens), in the host's memory."""
        return torch.zeros(num_rows, num_tokens, dtype=torch.long, device="cpu")


def _tokenised(tokenizer: Any, texts: Sequence[Words], tags: Sequence[Sequence[int]], max_tokens: int) -> Tokenised:
    """Return rows of whole words, none longer than `max_tokens`; a single word that is longer is cut.

    Words are tokenised as text with a space between them, as the backbone has seen them.
    """
    from datasets import Dataset

    left = [(number, range(len(words))) for number, words in enumerate(texts)]
    rows: list[tuple[int, list[int], dict[str, list[int]]]] = []
    cut: set[int] = set()
    while left:
        encoding = tokenizer(
            [" ".join(texts[number][place] for place in span) for number, span in left],
            return_offsets_mapping=True,
            split_special_tokens=True,
            truncation=False,
        )
        later = []
        for row, (number, span) in enumerate(left):
            columns = {name: encoding[name][row] for name in encoding if name != "offset_mapping"}
            words = _word_of_each_token([texts[number][place] for place in span], encoding["offset_mapping"][row])
            if len(words) <= max_tokens:
                rows.append((number, *_labelled(columns, words, span, tags[number])))
                continue
            num_special = tokenizer.num_special_tokens_to_add(pair=False)
            fits = _words_that_fit(words, max_tokens - num_special)
            if len(span) == 1:
                cut.add(number)
                columns = {name: [*values[: max_tokens - 1], values[-1]] for name, values in columns.items()}
                rows.append((number, *_labelled(columns, [*words[: max_tokens - 1], None], span, tags[number])))
                continue
            fits = min(max(fits, 1), len(span) - 1)
            later += [(number, span[:fits]), (number, span[fits:])]
        left = later
    rows.sort(key=lambda row: (row[0], row[1]))
    names = list(rows[0][2])
    table: dict[str, list[Any]] = {name: [columns[name] for _, _, columns in rows] for name in names}
    table |= {"_sentence": [number for number, _, _ in rows], "_words": [words for _, words, _ in rows]}
    return Tokenised(Dataset.from_dict(table), len(cut))


def _word_of_each_token(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """Return in which word each token ends; None for tokens that stand for no characters."""
    starts, at = [], 0
    for word in words:
        starts.append(at)
        at += len(word) + 1
    return [bisect_right(starts, end - 1) - 1 if end > start else None for start, end in offsets]


def _words_that_fit(words: Sequence[int | None], num_tokens: int) -> int:
    """Return how many whole words the first `num_tokens` tokens hold."""
    told = [word for word in words if word is not None]
    return told[num_tokens] if num_tokens < len(told) else told[-1]


def _labelled(
    columns: dict[str, list[int]], words: Sequence[int | None], span: range, tags: Sequence[int]
) -> tuple[list[int], dict[str, list[int]]]:
    """Return which of the sentence's words begin in the row, and its columns with their labels."""
    labels: list[int] = []
    begun: list[int] = []
    last = -1
    for word in words:
        if word is None or word == last:
            labels.append(IGNORED)
            continue
        begun.append(span[word])
        labels.append(tags[span[word]])
        last = word
    return begun, columns | {"labels": labels}


@dataclass(frozen=True)
class TagPredictions:
    """What a model, or a classical predictor, says of each sentence, in the split's order."""

    predicted: list[list[int]]
    labels: Sequence[Sequence[int]]
    names: Sequence[str]
    """Of the tags."""

    def metrics(self) -> dict[str, Metric]:
        """Return F1, precision and recall over entities, F1 of each type, and accuracy over words."""
        return tag_metrics(self._named(self.labels), self._named(self.predicted))

    def _named(self, rows: Sequence[Sequence[int]]) -> list[list[str]]:
        return [[self.names[tag] for tag in row] for row in rows]

    def confusion(self) -> Confusion:
        """Return the confusion matrix over the words' tags."""
        true, predicted = ([tag for row in rows for tag in row] for rows in (self.labels, self.predicted))
        return confusion(true, predicted, list(self.names))

    def warnings(self) -> list[str]:
        """Return a warning if one tag was predicted for every word."""
        used = {tag for row in self.predicted for tag in row}
        return [f"predicts one tag only ('{self.names[used.pop()]}')"] if len(used) == 1 else []

    def table(self) -> Table:
        """Return each sentence's tags, and those predicted."""
        return tags_table(self._named(self.labels), self._named(self.predicted))
