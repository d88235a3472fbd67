"""Paired tests: whether two predictors differ on the same test examples, beyond what examples and seeds explain."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pewb.evaluation.parts import Measure, mean

_RESAMPLES = 10_000
"""The least p-value is 2 / (1 + this): small enough to survive Holm's correction over hundreds of rows."""
_ENTRIES_AT_ONCE = 4_000_000
_NORMAL_QUANTILE = 1.959963984540054

MCNEMAR = "McNemar's exact test"
BOOTSTRAP_OF_EXAMPLES = "paired bootstrap over examples"
BOOTSTRAP = "paired bootstrap over examples with Student's t over seeds"


@dataclass(frozen=True)
class PairedTest:
    """The difference of a metric of two predictors on the same examples, the first less the second."""

    difference: float
    low: float
    high: float
    """Bounds of the 95 % interval."""
    p_value: float
    """Two-sided, of the hypothesis that there is no difference."""
    test: str


@dataclass(frozen=True)
class SeedNoise:
    """How much a metric varies from seed to seed, estimated over several predictors."""

    variance: float
    degrees_of_freedom: int

    @classmethod
    def pooled(cls, predictors: Iterable[np.ndarray]) -> SeedNoise | None:
        """Return the pooled variance, as in a one-way analysis of variance; None if seeds change nothing anywhere.

        Predictors whose seeds all reach the same are left out: most of them are such that no seed changes them.

        Args:
            predictors: the metric of each, (seeds,).
        """
        replicated = [values for values in predictors if len(values) > 1 and np.ptp(values)]
        degrees = sum(len(values) - 1 for values in replicated)
        squares = sum(float(((values - values.mean()) ** 2).sum()) for values in replicated)
        return cls(squares / degrees, degrees) if degrees else None


@dataclass(frozen=True)
class Predictor:
    """One side of a paired test."""

    parts: np.ndarray
    """What each example adds to the metric: right or wrong, (examples, seeds), of bool; or numbers, (examples, seeds, parts)."""
    noise: SeedNoise | None = None
    """What is known of seeds from other predictors too; None: its own seeds speak for it alone."""
    measure: Measure = mean
    """The metric."""

    @property
    def is_right_or_wrong(self) -> bool:
        """Whether the metric is the share of examples that are right."""
        return self.parts.dtype == bool

    @property
    def columns(self) -> np.ndarray:
        """What each example adds, (examples, seeds, parts)."""
        return self.parts if self.parts.ndim == 3 else self.parts[..., None]

    @property
    def values(self) -> np.ndarray:
        """The metric of each run, (seeds,)."""
        return self.measure(self.columns.mean(0))


def paired_test(one: Predictor, other: Predictor) -> PairedTest:
    """Test one predictor against another on the same examples; the numbers of seeds may differ."""
    return paired_tests(one, [other])[0]


def paired_tests(one: Predictor, others: Sequence[Predictor]) -> list[PairedTest]:
    """Test one predictor against each of the others.

    Where nothing is known of seeds, the question is whether these two models differ: single runs are tested by McNemar
    where examples are right or wrong, else by the bootstrap over the examples. All else is tested by the bootstrap: whether
    they differ beyond what other seeds might bring.
    """
    sides = _sides([one, *others])
    return [
        _mcnemar(one.parts[:, 0], other.parts[:, 0])
        if _are_single(sides[0], side) and one.is_right_or_wrong and other.is_right_or_wrong
        else _from_draws(
            one,
            other,
            _differences(sides[0], side),
            BOOTSTRAP_OF_EXAMPLES if _are_single(sides[0], side) else BOOTSTRAP,
        )
        for other, side in zip(others, sides[1:], strict=True)
    ]


def _are_single(one: _Side, other: _Side) -> bool:
    return one.is_single and other.is_single


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


def _from_draws(one: Predictor, other: Predictor, differences: np.ndarray, test: str) -> PairedTest:
    """Return the percentile interval of drawn differences, and the p-value that agrees with it."""
    differences = differences.round(12)
    below, above = (int((sign * differences <= 0).sum()) for sign in (1, -1))
    p_value = min(1.0, 2 * (1 + min(below, above)) / (1 + len(differences)))
    difference = float(one.values.mean() - other.values.mean())
    most = 1.0 if one.is_right_or_wrong else math.inf
    low, high = (float(bound) for bound in np.clip(np.quantile(differences, [0.025, 0.975]), -most, most))
    return PairedTest(difference, min(low, difference), max(high, difference), p_value, test)


@dataclass(frozen=True)
class _Side:
    """One predictor, in resamples of the test examples."""

    values: np.ndarray
    """Of the metric, (resamples,), the mean over its seeds; empty if no test needs it."""
    seed_variance: float
    """Of that mean, over seeds; 0 for a single run of which nothing else is known."""
    degrees_of_freedom: int
    """Of that variance."""
    pooled: SeedNoise | None
    """The noise of several predictors, where that is its variance; None: its own seeds'."""
    digest: int
    """Of its parts."""

    @property
    def is_single(self) -> bool:
        return not self.degrees_of_freedom


def _sides(predictors: Sequence[Predictor]) -> list[_Side]:
    """Return each predictor in the same resamples of the test examples (Efron 1979), so that differences are paired."""
    seeds = [_of_seeds(predictor) for predictor in predictors]
    are_drawn = any(degrees for _, degrees, _ in seeds) or not all(one.is_right_or_wrong for one in predictors)
    drawn = _resampled(predictors) if are_drawn else [np.empty(0) for _ in predictors]
    return [
        _Side(values, *own, _digest(predictor.parts))
        for values, own, predictor in zip(drawn, seeds, predictors, strict=True)
    ]


def _of_seeds(predictor: Predictor) -> tuple[float, int, SeedNoise | None]:
    """Return the variance of a predictor's mean over seeds, its degrees of freedom, and the noise if it is from there.

    The variance is its own seeds' or the noise, whichever is larger: that of two seeds is often far too small by chance,
    and where it is the larger one, the predictor may be less stable than the others, of which these then say nothing: its
    degrees of freedom are its own. A predictor with five times the deviation of eight others seemed to differ from one of
    them, by chance, in 9 % of simulations of two seeds, and in 7 % of three; with all degrees of freedom in 19 and 12 %.
    """
    num_seeds, noise = predictor.parts.shape[1], predictor.noise
    own = float(predictor.values.var(ddof=1)) if num_seeds > 1 else 0.0
    if noise is None or own > noise.variance:
        return own / num_seeds, num_seeds - 1, None
    return noise.variance / num_seeds, noise.degrees_of_freedom, noise


def _resampled(predictors: Sequence[Predictor]) -> list[np.ndarray]:
    """Return each predictor's metric, (resamples,), the mean over its seeds, in the same resamples of the examples."""
    num_examples = len(predictors[0].parts)
    number: Any = np.float32 if all(one.is_right_or_wrong for one in predictors) else np.float64
    flat = [one.columns.reshape(num_examples, -1) for one in predictors]
    columns = np.concatenate(flat, axis=1).astype(number)
    generator = np.random.default_rng(0)
    at_once = max(1, _ENTRIES_AT_ONCE // num_examples)
    parts = [
        _weights(generator, min(at_once, _RESAMPLES - start), num_examples).astype(number, copy=False) @ columns
        for start in range(0, _RESAMPLES, at_once)
    ]
    means = np.concatenate(parts).astype(float) / num_examples
    ends = np.cumsum([one.shape[1] for one in flat])[:-1]
    return [
        one.measure(own.reshape(len(own), *one.columns.shape[1:])).mean(1)
        for one, own in zip(predictors, np.split(means, ends, axis=1), strict=True)
    ]


def _differences(one: _Side, other: _Side) -> np.ndarray:
    """Return draws of the difference, (resamples,): of the examples by resampling, of the seeds by Student's t.

    Two or three seeds are too few to resample: the largest of their four differences would stand for the tail. Their part
    is drawn from t, with the degrees of freedom of the noise where it is that of both sides, else with Welch's (Welch
    1947). Its generator is seeded by the outcomes of both, so that the result depends on neither order nor company.
    """
    differences = np.asarray(one.values - other.values)
    variance = one.seed_variance + other.seed_variance
    if not variance:
        return differences
    degrees: float = one.degrees_of_freedom
    if one.pooled is None or one.pooled != other.pooled:
        sides = [side for side in (one, other) if side.seed_variance]
        degrees = variance**2 / sum(side.seed_variance**2 / side.degrees_of_freedom for side in sides)
    sign = 1 if one.digest <= other.digest else -1
    drawn = np.random.default_rng(one.digest ^ other.digest).standard_t(degrees, len(differences))
    return np.asarray(differences + sign * math.sqrt(variance) * drawn)


def _digest(parts: np.ndarray) -> int:
    content = np.packbits(parts) if parts.dtype == bool else np.ascontiguousarray(parts, float)
    return int.from_bytes(hashlib.sha256(content.tobytes()).digest()[:8], "big")


def _weights(generator: np.random.Generator, num_resamples: int, num_examples: int) -> np.ndarray:
    """Return how often each example is drawn, (resamples, examples), float32: sums of whole numbers are exact in it."""
    drawn = generator.integers(0, num_examples, size=(num_resamples, num_examples))
    drawn += num_examples * np.arange(num_resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=num_resamples * num_examples)
    return counts.reshape(num_resamples, num_examples).astype(np.float32)
