"""Paired tests: whether two predictors differ on the same test examples, beyond what examples and seeds explain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pewb.evaluation.parts import Measure, mean

_RESAMPLES = 10_000
"""The least p-value is 2 / (1 + this): small enough to survive Holm's correction over hundreds of rows."""
_GROUPS = 500
"""So many means of neighbouring resamples stand for all where bounds are looked for."""
_OUTLYING = 0.05
"""An F test's p, over all predictors, below which one varies more than the rest."""
SIGNIFICANCE = 0.05
"""What p is below where two are told apart."""
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

        Predictors whose seeds all reach the same are left out: most of them are such that no seed changes them. So are, the
        worst first, those that vary more than the rest do by an F test at 5 % over their number: one whose training fails
        with some seeds would have all others look unstable. In 600 simulations of seven (1,000 examples, three seeds, one with
        4 points of deviation, the others with 0.5) two of the others that were 3 points apart were told apart in 82 %, and in
        47 % when all were pooled; two that were not, in 2 %.

        Args:
            predictors: the metric of each, (seeds,).
        """
        replicated = [values for values in predictors if len(values) > 1 and np.ptp(values)]
        while len(replicated) > 2:
            place = int(np.argmax([values.var(ddof=1) for values in replicated]))
            rest = [values for number, values in enumerate(replicated) if number != place]
            if not _varies_more(replicated[place], cls._of(rest), len(replicated)):
                break
            replicated = rest
        return cls._of(replicated) if replicated else None

    @classmethod
    def _of(cls, replicated: Sequence[np.ndarray]) -> SeedNoise:
        degrees = sum(len(values) - 1 for values in replicated)
        squares = sum(float(((values - values.mean()) ** 2).sum()) for values in replicated)
        return cls(squares / degrees, degrees)


def _varies_more(values: np.ndarray, rest: SeedNoise, num_predictors: int) -> bool:
    from scipy.special import fdtrc  # the tail of scipy.stats.f, at a tenth of the import time

    p_value = fdtrc(len(values) - 1, rest.degrees_of_freedom, values.var(ddof=1) / rest.variance)
    return bool(p_value * num_predictors < _OUTLYING)


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
        else _from_resamples(one, other, sides[0], side)
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


def _from_resamples(one: Predictor, other: Predictor, first: _Side, second: _Side) -> PairedTest:
    """Return the interval of the difference, and the p-value that agrees with it.

    What differs in resamples of the examples is added to what seeds bring: Student's t (two or three seeds are too few to
    resample: the largest of their four differences would stand for the tail), with the degrees of freedom of the noise
    where it is that of both sides, else with Welch's (Welch 1947).
    """
    differences = (first.values - second.values).round(12)
    error, degrees = _seed_error(first, second)
    difference = float(one.values.mean() - other.values.mean())
    if error:
        differences = _without_overlap(differences, first, second)
        low, high, p_value = _with_student(differences, error, degrees)
    else:
        low, high = (float(bound) for bound in np.quantile(differences, [0.025, 0.975]))
        p_value = 2 * min(float((sign * differences <= 0).mean()) for sign in (1, -1))
    num_unlike = int((one.columns.mean(1) != other.columns.mean(1)).any(-1).sum())
    least = max(2 / (1 + _RESAMPLES), 2.0 ** (1 - num_unlike))  # less can't be of so few, whatever the resamples say
    if max(p_value, least) >= SIGNIFICANCE:  # by so few examples the interval reaches zero
        low, high = min(low, 0.0), max(high, 0.0)
    most = 1.0 if one.is_right_or_wrong else math.inf
    low, high = max(-most, min(low, difference)), min(most, max(high, difference))
    return PairedTest(
        difference, low, high, min(1.0, max(p_value, least)), BOOTSTRAP if error else BOOTSTRAP_OF_EXAMPLES
    )


def _seed_error(one: _Side, other: _Side) -> tuple[float, float]:
    """Return the standard error that seeds bring to a difference, and its degrees of freedom."""
    variance = one.seed_variance + other.seed_variance
    if not variance:
        return 0.0, 0.0
    if one.pooled is not None and one.pooled == other.pooled:
        return math.sqrt(variance), one.degrees_of_freedom
    sides = [side for side in (one, other) if side.seed_variance]
    degrees = variance**2 / sum(side.seed_variance**2 / side.degrees_of_freedom for side in sides)
    return math.sqrt(variance), degrees


def _without_overlap(differences: np.ndarray, one: _Side, other: _Side) -> np.ndarray:
    """Return the differences drawn together, so that what varies with examples and seeds both counts once, with the seeds."""
    spread = float(differences.var())
    overlap = sum(side.overlap for side in (one, other) if side.seed_variance)
    share = math.sqrt(max(0.0, 1 - overlap / spread)) if spread else 1.0
    center = float(differences.mean())
    return np.asarray(center + share * (differences - center))


def _with_student(differences: np.ndarray, error: float, degrees: float) -> tuple[float, float, float]:
    """Return the 95 % interval of `differences` + `error` · t, each difference being as likely, and p of zero in it."""
    from scipy.special import stdtr, stdtrit  # scipy.stats.t's, at a tenth of the import time

    tails = [float(stdtr(degrees, sign * differences / error).mean()) for sign in (1, -1)]
    groups = np.sort(differences).reshape(_GROUPS, -1).mean(1)
    reach = error * float(stdtrit(degrees, 0.975))
    bounds = []
    for share in (0.025, 0.975):
        least, most = groups[0] - reach, groups[-1] + reach
        for _ in range(40):
            middle = (least + most) / 2
            if float(stdtr(degrees, (middle - groups) / error).mean()) < share:
                least = middle
            else:
                most = middle
        bounds.append(float(least + most) / 2)
    return bounds[0], bounds[1], 2 * min(tails)


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
    overlap: float
    """Of that mean, over resamples, the variance that its seeds' variance holds too: other seeds are right on other examples."""

    @property
    def is_single(self) -> bool:
        return not self.degrees_of_freedom


def _sides(predictors: Sequence[Predictor]) -> list[_Side]:
    """Return each predictor in the same resamples of the test examples (Efron 1979), so that differences are paired."""
    seeds = [_of_seeds(predictor) for predictor in predictors]
    are_drawn = any(degrees for _, degrees, _ in seeds) or not all(one.is_right_or_wrong for one in predictors)
    drawn = _resampled(predictors) if are_drawn else [np.empty((0, 1)) for _ in predictors]
    return [_Side(values.mean(1), *own, _overlap(values)) for values, own in zip(drawn, seeds, strict=True)]


def _overlap(values: np.ndarray) -> float:
    """Return the variance, over resamples, of a mean over seeds that is due to examples on which the seeds differ.

    Args:
        values: the metric, (resamples, seeds).
    """
    num_seeds = values.shape[1]
    if num_seeds == 1 or not len(values):
        return 0.0
    apart = values - values.mean(1, keepdims=True)
    return float(apart.var(0).sum() / (num_seeds - 1) / num_seeds)


def _of_seeds(predictor: Predictor) -> tuple[float, int, SeedNoise | None]:
    """Return the variance of a predictor's mean over seeds, its degrees of freedom, and the noise if it is from there.

    The variance is its own seeds' or the noise, whichever is larger: that of two seeds is often far too small by chance,
    and where it is the larger one, the predictor may be less stable than the others, of which these then say nothing: its
    degrees of freedom are its own. In 600 simulations a predictor with five times the deviation of eight others seemed to
    differ from one of them, by chance, in 7 % with two seeds and in 5 % with three.
    """
    num_seeds, noise = predictor.parts.shape[1], predictor.noise
    own = float(predictor.values.var(ddof=1)) if num_seeds > 1 else 0.0
    if noise is None or own > noise.variance:
        return own / num_seeds, num_seeds - 1, None
    return noise.variance / num_seeds, noise.degrees_of_freedom, noise


def _resampled(predictors: Sequence[Predictor]) -> list[np.ndarray]:
    """Return each predictor's metric, (resamples, seeds), in the same resamples of the examples."""
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
        one.measure(own.reshape(len(own), *one.columns.shape[1:]))
        for one, own in zip(predictors, np.split(means, ends, axis=1), strict=True)
    ]


def _weights(generator: np.random.Generator, num_resamples: int, num_examples: int) -> np.ndarray:
    """Return how often each example is drawn, (resamples, examples), float32: sums of whole numbers are exact in it."""
    drawn = generator.integers(0, num_examples, size=(num_resamples, num_examples))
    drawn += num_examples * np.arange(num_resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=num_resamples * num_examples)
    return counts.reshape(num_resamples, num_examples).astype(np.float32)
