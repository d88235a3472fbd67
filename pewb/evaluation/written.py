"""Metrics of written texts, each held against the one that was to be written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from pewb.evaluation.intervals import proportion, ratio, resampled_sums
from pewb.record import Metric

_ROUGES = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeLsum": "rouge_l"}


def answer_in(text: str, pattern: str | None) -> str:
    """Return what counts as the answer: the first group of the last match of `pattern`, or the text itself; commas in numbers go.

    Without any match the answer is empty.
    """
    if pattern is None:
        return text.strip()
    matches = list(re.finditer(pattern, text))
    if not matches:
        return ""
    found = matches[-1][1] if matches[-1].re.groups else matches[-1][0]
    found = (found or "").strip().rstrip(".")
    return found.replace(",", "") if re.fullmatch(r"[-+$]?[\d,]+(\.\d+)?", found) else found


def written_metrics(
    written: Sequence[str], wanted: Sequence[str], pattern: str | None = None, *, is_translated: bool = False
) -> dict[str, Metric]:
    """Return exact matches (of answers, if there is a `pattern`), ROUGE 1, 2 and L, and the texts' length.

    ROUGE is rouge-score's F1 with stemming (Lin 2004; L over lines); `length_ratio` is that of all words written to all
    that were wanted. Where texts are translated or summarised, `sacrebleu` (13a tokens) and `chrf` (chrF2) besides, each
    with its bootstrap interval.

    Args:
        written: by the model.
        wanted: one for each.
        pattern: finds the answer in both.
        is_translated: whether an encoder-decoder wrote them.
    """
    from rouge_score.rouge_scorer import RougeScorer

    pairs = list(zip(written, wanted, strict=True))
    right = [
        bool(answer_in(one, pattern)) and answer_in(one, pattern) == answer_in(other, pattern) for one, other in pairs
    ]
    metrics = {"exact_match": proportion(sum(right), len(right))}
    scorer = RougeScorer(list(_ROUGES), use_stemmer=True)
    scores = [scorer.score(other, one) for one, other in pairs]
    for theirs, ours in _ROUGES.items():
        values = np.array([score[theirs].fmeasure for score in scores])
        metrics[ours] = ratio(values, np.ones(len(values)))
    lengths = np.array([[len(text.split()) for text in pair] for pair in pairs], float)
    metrics["length_ratio"] = ratio(lengths[:, 0], lengths[:, 1])
    return metrics | (_translated(written, wanted) if is_translated else {})


def _translated(written: Sequence[str], wanted: Sequence[str]) -> dict[str, Metric]:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    found = {}
    for name, metric in (("sacrebleu", BLEU()), ("chrf", CHRF())):
        # Its own bootstrap (corpus_score with n_bootstrap) fails where some scores are float32 and some are not.
        stats = np.asarray(metric._extract_corpus_statistics(list(written), [list(wanted)]), float)

        def scores(sums: np.ndarray, metric: Any = metric) -> np.ndarray:
            return np.array([float(metric._compute_score_from_stats(one.tolist()).score) for one in sums])

        found[name] = resampled_sums(scores, stats)
    return found
