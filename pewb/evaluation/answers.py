"""How an answer is compared to those that are accepted, as SQuAD's evaluation script does (Rajpurkar et al. 2016, section 6)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(predicted: str, accepted: Sequence[str]) -> float:
    """Return 1 if the answer is one of those accepted, but for case, punctuation, articles and white space; else 0.

    Where none is accepted, for there is none, the empty answer is right.
    """
    return max(float(_normal(predicted) == _normal(one)) for one in accepted or [""])


def word_f1(predicted: str, accepted: Sequence[str]) -> float:
    """Return the greatest F1 of the answer's words and those of an accepted one."""
    return max(_word_f1(_normal(predicted).split(), _normal(one).split()) for one in accepted or [""])


def _word_f1(predicted: list[str], accepted: list[str]) -> float:
    if not predicted or not accepted:
        return float(predicted == accepted)
    shared = sum((Counter(predicted) & Counter(accepted)).values())
    return 2 * shared / (len(predicted) + len(accepted))


def _normal(text: str) -> str:
    without = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION))
    return " ".join(without.split())
