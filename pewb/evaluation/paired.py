"""Paired tests: whether two predictors differ on the same test examples, beyond what examples and seeds explain."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 10_000
"""The least p-value is 2 / (1 + this): small enough to survive Holm's correction over hundreds of rows."""
_ENTRIES_AT_ONCE = 4_000_000
_NORMAL_QUANTILE = 1.959963984540054

MCNEMAR = "McNemar's exact test"
BOOTSTRAP = "paired bootstrap over examples with Student's t over seeds"


@dataclass(frozen=True)
class PairedTest:
    """The difference of two accuracies on the same examples, the first less the second."""

    difference: float
    low: float
    high: float
    """Bounds of the 95 % interval."""
    p_value: float
    """Two-sided, of the hypothesis that there is no difference."""
    test: str


def paired_test(one: np.ndarray, other: np.ndarray) -> PairedTest:
    """Test one predictor against another.

    Args:
        one: right or wrong, (examples, seeds).
        other: likewise, on the same examples; the number of seeds may differ.
    """
    return paired_tests(one, [other])[0]


def paired_tests(one: np.ndarray, others: Sequence[np.ndarray]) -> list[PairedTest]:
    """Test one predictor against each of the others: McNemar for single runs, the bootstrap where a side has seeds."""
    single = [one.shape[1] == other.shape[1] == 1 for other in others]
    several = [other for other, is_single in zip(others, single, strict=True) if not is_single]
    resampled = _resampled([one, *several]) if several else []
    remaining = iter(resampled[1:])
    return [
        _mcnemar(one[:, 0], other[:, 0])
        if is_single
        else _from_draws(one, other, _differences(resampled[0], next(remaining)))
        for other, is_single in zip(others, single, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down method (Holm 1979).

    These four lines stand for statsmodels' `multipletests`, to which a test holds them: importing that takes 0.9 s, four
    times as long as everything else `pewb leaderboard` does.
    """
    values = np.asarray(p_values, float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(1, stepped)[np.argsort(order, kind="stable")].tolist()  # type: ignore[no-any-return]


def _mcnemar(one: np.ndarray, other: np.ndarray) -> PairedTest:
    """Test two runs by the examples on which just one of them is right (McNemar 1947, with the exact binomial).

    The interval is Wald's with the Laplace adjustment of Bonett and Price (2012), one of the two that Fagerland, Lydersen
    and Laake (2014) recommend for paired proportions. `bdtr` is the distribution function of `scipy.stats.binom`, at a
    quarter of the import time.
    """
    from scipy.special import bdtr

    num_examples, only_one, only_other = len(one), int((one & ~other).sum()), int((other & ~one).sum())
    p_value = min(1.0, 2 * float(bdtr(min(only_one, only_other), only_one + only_other, 0.5)))
    first, second = (only_one + 1) / (num_examples + 2), (only_other + 1) / (num_examples + 2)
    half = _NORMAL_QUANTILE * math.sqrt((first + second - (first - second) ** 2) / (num_examples + 2))
    low, high = max(-1.0, first - second - half), min(1.0, first - second + half)
    difference = (only_one - only_other) / num_examples
    return PairedTest(difference, min(low, difference), max(high, difference), p_value, MCNEMAR)


def _from_draws(one: np.ndarray, other: np.ndarray, differences: np.ndarray) -> PairedTest:
    """Return the percentile interval of drawn differences, and the p-value that agrees with it."""
    differences = differences.round(12)
    below, above = (int((sign * differences <= 0).sum()) for sign in (1, -1))
    p_value = min(1.0, 2 * (1 + min(below, above)) / (1 + len(differences)))
    difference = float(one.mean() - other.mean())
    low, high = (float(bound) for bound in np.clip(np.quantile(differences, [0.025, 0.975]), -1, 1))
    return PairedTest(difference, min(low, difference), max(high, difference), p_value, BOOTSTRAP)


@dataclass(frozen=True)
class _Resampled:
    """One predictor, in resamples of the test examples."""

    accuracies: np.ndarray
    """(resamples,), the mean over its seeds."""
    seed_variance: float
    """Of that mean, over seeds: their variance over their number; 0 for a single run."""
    num_seeds: int
    digest: int
    """Of its outcomes."""


def _resampled(predictors: Sequence[np.ndarray]) -> list[_Resampled]:
    """Return each predictor in the same resamples of the test examples (Efron 1979), so that differences are paired."""
    num_examples = len(predictors[0])
    columns = np.concatenate(predictors, axis=1).astype(np.float32)
    generator = np.random.default_rng(0)
    at_once = max(1, _ENTRIES_AT_ONCE // num_examples)
    parts = [
        _weights(generator, min(at_once, _RESAMPLES - start), num_examples) @ columns
        for start in range(0, _RESAMPLES, at_once)
    ]
    accuracies = np.concatenate(parts).astype(float) / num_examples
    ends = np.cumsum([predictor.shape[1] for predictor in predictors])[:-1]
    return [
        _Resampled(values.mean(1), _seed_variance(predictor), predictor.shape[1], _digest(predictor))
        for values, predictor in zip(np.split(accuracies, ends, axis=1), predictors, strict=True)
    ]


def _differences(one: _Resampled, other: _Resampled) -> np.ndarray:
    """Return draws of the difference, (resamples,): of the examples by resampling, of the seeds by Student's t.

    Two or three seeds are too few to resample: the largest of their four differences would stand for the tail. Their part is
    drawn from t with Welch's degrees of freedom (Welch 1947), which is what the seeds alone would say; its generator is
    seeded by the outcomes of both, so that the result depends on neither order nor company.
    """
    differences = np.asarray(one.accuracies - other.accuracies)
    variance = one.seed_variance + other.seed_variance
    if not variance:
        return differences
    spread = sum(side.seed_variance**2 / (side.num_seeds - 1) for side in (one, other) if side.num_seeds > 1)
    sign = 1 if one.digest <= other.digest else -1
    drawn = np.random.default_rng(one.digest ^ other.digest).standard_t(variance**2 / spread, len(differences))
    return np.asarray(differences + sign * math.sqrt(variance) * drawn)


def _seed_variance(predictor: np.ndarray) -> float:
    num_seeds = predictor.shape[1]
    return float(predictor.mean(0).var(ddof=1)) / num_seeds if num_seeds > 1 else 0.0


def _digest(predictor: np.ndarray) -> int:
    return int.from_bytes(hashlib.sha256(np.packbits(predictor.astype(bool)).tobytes()).digest()[:8], "big")


def _weights(generator: np.random.Generator, num_resamples: int, num_examples: int) -> np.ndarray:
    """Return how often each example is drawn, (resamples, examples), float32: sums of whole numbers are exact in it."""
    drawn = generator.integers(0, num_examples, size=(num_resamples, num_examples))
    drawn += num_examples * np.arange(num_resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=num_resamples * num_examples)
    return counts.reshape(num_resamples, num_examples).astype(np.float32)
