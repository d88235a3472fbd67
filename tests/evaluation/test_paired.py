"""Paired tests against statsmodels and SciPy, under the null, and in what they must satisfy."""

import numpy as np
import pytest

from pewb.evaluation.paired import BOOTSTRAP, MCNEMAR, Predictor, SeedNoise, holm, paired_test, paired_tests


def _from_table(both, only_one, only_other, neither):
    one = [True] * (both + only_one) + [False] * (only_other + neither)
    other = [True] * both + [False] * only_one + [True] * only_other + [False] * neither
    return Predictor(np.array(one)[:, None]), Predictor(np.array(other)[:, None])


@pytest.mark.parametrize("table", [(50, 10, 3, 20), (5, 0, 6, 1), (100, 40, 40, 9), (0, 1, 0, 0), (7, 0, 0, 3)])
def test_p_of_single_runs_is_statsmodels_and_scipys(table):
    from scipy.stats import binomtest
    from statsmodels.stats.contingency_tables import mcnemar

    both, only_one, only_other, neither = table
    test = paired_test(*_from_table(*table))
    assert test.test == MCNEMAR
    assert test.p_value == pytest.approx(mcnemar([[both, only_one], [only_other, neither]], exact=True).pvalue)
    if only_one + only_other:
        assert test.p_value == pytest.approx(binomtest(only_one, only_one + only_other).pvalue)
    assert test.difference == pytest.approx((only_one - only_other) / sum(table))
    assert test.low <= test.difference <= test.high


def test_the_interval_is_bonetts_and_prices():
    """By hand for 1, 1, 7, 12: 2/23 less 8/23, and 1.96 times the root of (10/23 - (6/23)²) / 23."""
    test = paired_test(*_from_table(1, 1, 7, 12))
    assert (round(test.low, 3), round(test.high, 3)) == (-0.508, -0.013)


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_holm_is_statsmodels(count):
    from statsmodels.stats.multitest import multipletests

    p_values = (np.random.default_rng(count).random(count) ** 3).round(2)
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())
    assert holm([]) == []


@pytest.mark.parametrize(
    ("seeds", "seed_effect", "allowed"),
    [((1, 1), 0.0, 0.07), ((3, 3), 0.0, 0.09), ((5, 2), 0.05, 0.09), ((2, 2), 0.2, 0.09)],
)
def test_under_the_null_p_is_seldom_small(seeds, seed_effect, allowed):
    generator = np.random.default_rng(3)
    p_values = []
    for _ in range(120):
        sides = generator.normal(size=(150, 1))
        one, other = (
            (sides + generator.normal(size=(150, count)) + seed_effect * generator.normal(size=count)) < 1
            for count in seeds
        )
        p_values.append(paired_test(Predictor(one), Predictor(other)).p_value)
    assert np.mean(np.array(p_values) < 0.05) <= allowed
    assert 0.3 < np.median(p_values) < 0.85


def test_the_interval_covers_the_true_difference():
    generator = np.random.default_rng(5)
    covered = {1: 0, 3: 0}
    for num_seeds in covered:
        for _ in range(100):
            hard = generator.random((200, 1)) < 0.5
            one = generator.random((200, num_seeds)) < np.where(hard, 0.7, 0.9)
            other = generator.random((200, num_seeds)) < np.where(hard, 0.6, 0.9)
            test = paired_test(Predictor(one), Predictor(other))
            covered[num_seeds] += test.low <= 0.05 <= test.high
    assert min(covered.values()) >= 88


@pytest.mark.parametrize("noise", [None, SeedNoise(1e-4, 3)])
@pytest.mark.parametrize("seeds", [(1, 1), (2, 2), (1, 3), (4, 2)])
def test_the_sides_are_alike_and_the_result_is_the_same_each_time(seeds, noise):
    generator = np.random.default_rng(0)
    shares = zip(seeds, (0.8, 0.77), strict=True)
    one, other = (Predictor(generator.random((300, count)) < share, noise) for count, share in shares)
    there, back = paired_test(one, other), paired_test(other, one)
    assert there == paired_test(one, other)
    assert back.p_value == there.p_value
    assert (back.difference, back.low, back.high) == pytest.approx((-there.difference, -there.high, -there.low))


@pytest.mark.parametrize("num_seeds", [1, 2, 5])
def test_identical_predictions_do_not_differ(num_seeds):
    correct = np.random.default_rng(1).random((100, num_seeds)) < 0.8
    test = paired_test(Predictor(correct), Predictor(correct.copy()))
    assert test.difference == 0
    assert test.p_value == pytest.approx(1, abs=0.05)
    assert test.low <= 0 <= test.high


@pytest.mark.parametrize("noise", [None, SeedNoise(1e-4, 3)])
def test_a_row_is_tested_alike_whatever_the_company(noise):
    generator = np.random.default_rng(2)

    def drawn(*counts):
        return (Predictor(generator.random((200, count)) < 0.8, noise) for count in counts)

    best, *others = drawn(2, 1, 3, 2)
    assert paired_tests(best, others) == [paired_test(best, other) for other in others]
    single, *rest = drawn(1, 1, 3)
    assert [test.test for test in paired_tests(single, rest)] == [BOOTSTRAP if noise else MCNEMAR, BOOTSTRAP]


def _with_accuracies(accuracies, noise=None, num_examples=20_000):
    """With so many examples, of which all get the first ones right, little is left to chance but the seeds."""
    return Predictor(np.arange(num_examples)[:, None] < num_examples * np.asarray(accuracies), noise)


def _assert_is(test, other, quantile):
    interval = other.confidence_interval()
    width = interval.high - interval.low
    assert (test.low, test.high) == pytest.approx((interval.low, interval.high), abs=quantile * width)
    assert test.p_value == pytest.approx(other.pvalue, abs=0.03)


@pytest.mark.parametrize("counts", [(2, 2), (2, 5), (4, 3)])
def test_where_only_seeds_matter_it_is_welchs_test(counts):
    from scipy.stats import ttest_ind

    generator = np.random.default_rng(4)
    one, other = (generator.normal(0.8, 0.02, count) for count in counts)
    test = paired_test(_with_accuracies(one), _with_accuracies(other))
    _assert_is(test, ttest_ind(one, other, equal_var=False), 0.1)


def test_where_only_pooled_seeds_matter_it_is_students_test():
    from scipy.stats import t

    one, other, third = [0.80, 0.81], [0.78, 0.79], [0.60, 0.64]
    noise = SeedNoise.pooled(_with_accuracies(values).values for values in (one, other, third))
    assert (noise.variance, noise.degrees_of_freedom) == (pytest.approx((1 + 1 + 16) * 5e-5 / 3, rel=0.01), 3)
    test = paired_test(_with_accuracies(one, noise), _with_accuracies(other, noise))
    error = np.sqrt(noise.variance)
    assert test.p_value == pytest.approx(2 * t.sf(0.02 / error, 3), abs=0.02)
    half = t.ppf(0.975, 3) * error
    assert (test.low, test.high) == pytest.approx((0.02 - half, 0.02 + half), abs=0.1 * half)


def test_a_predictor_less_stable_than_the_rest_keeps_its_own_variance_and_degrees_of_freedom():
    from scipy.stats import t

    noise = SeedNoise(1e-6, 8)
    unstable = [0.76, 0.80, 0.78]
    test = paired_test(_with_accuracies([0.80, 0.801, 0.8005], noise), _with_accuracies(unstable, noise))
    half = t.ppf(0.975, 2) * np.std(unstable, ddof=1) / np.sqrt(3)
    assert (test.high - test.low) / 2 == pytest.approx(half, rel=0.1)


def test_where_an_unstable_predictor_is_no_worse_it_seldom_seems_so():
    generator = np.random.default_rng(11)
    p_values = []
    for _ in range(60):
        accuracies = 0.5 + 0.01 * generator.normal(size=(6, 3)) * np.array([[1], [5], [1], [1], [1], [1]])
        noise = SeedNoise.pooled(accuracies)
        one, other = (_with_accuracies(accuracies[row], noise, num_examples=1_000) for row in (0, 1))
        p_values.append(paired_test(one, other).p_value)
    assert np.mean(np.array(p_values) < 0.05) <= 0.1


def test_predictors_that_no_seed_changes_say_nothing_of_the_others():
    assert SeedNoise.pooled(np.array([[0.7, 0.7], [0.8, 0.82]])) == SeedNoise.pooled(np.array([[0.8, 0.82]]))
    assert SeedNoise.pooled(np.array([[0.7, 0.7]])) is None


def test_one_that_varies_far_more_than_the_rest_does_not_make_them_look_unstable():
    stable = np.array([[0.80, 0.81, 0.805], [0.70, 0.71, 0.715], [0.75, 0.755, 0.76]])
    wild = np.array([[0.50, 0.80, 0.65]])
    assert SeedNoise.pooled([*stable, *wild]) == SeedNoise.pooled(stable)
    assert SeedNoise.pooled(stable).degrees_of_freedom == 6
    alike = np.add(stable, [0.0, 0.01, -0.01])
    assert SeedNoise.pooled([*stable, *alike]).degrees_of_freedom == 12


def test_what_seeds_and_examples_bring_together_counts_once():
    """Seeds that are right on other examples, each of the same chance: the seeds' variance holds all of it."""
    from scipy.stats import t

    generator = np.random.default_rng(12)
    one, other = (generator.random((4000, 20)) < 0.8 for _ in range(2))  # nothing is common to the seeds
    test = paired_test(Predictor(one), Predictor(other))
    error = np.sqrt((one.mean(0).var(ddof=1) + other.mean(0).var(ddof=1)) / 20)
    assert (test.high - test.low) / 2 == pytest.approx(t.ppf(0.975, 38) * error, rel=0.1)


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_so_few_examples_can_not_say_more_than_a_sign_test(num_seeds):
    noise = SeedNoise(1e-8, 8)
    right, wrong = (np.full((5, num_seeds), is_right) for is_right in (True, False))
    assert paired_test(Predictor(right, noise), Predictor(wrong, noise)).p_value == pytest.approx(2 / 2**5)


def test_p_does_not_depend_on_what_is_drawn(monkeypatch):
    """It is near to what any other resamples of the examples give: of the seeds nothing is drawn."""
    from pewb.evaluation import paired

    generator = np.random.default_rng(13)
    hard = generator.random((1000, 1))
    one, other = (Predictor((hard + 0.3 * generator.normal(size=(1000, 3))) < share) for share in (0.82, 0.79))
    p_values = [paired_test(one, other).p_value]
    weights = paired._weights
    for seed in (1, 2):
        monkeypatch.setattr(
            paired, "_weights", lambda _, *sizes, seed=seed: weights(np.random.default_rng(seed), *sizes)
        )
        p_values.append(paired_test(one, other).p_value)
    assert p_values == pytest.approx([p_values[0]] * 3, rel=0.1)


def test_one_without_randomness_adds_no_variance():
    noise = SeedNoise(1e-4, 8)
    strategy, fixed = _with_accuracies([0.80], noise), _with_accuracies([0.78])
    half = paired_test(strategy, fixed).high - 0.02
    assert half == pytest.approx(2.306 * 0.01, rel=0.1)
    assert paired_test(strategy, _with_accuracies([0.78], noise)).high - 0.02 > 1.3 * half


def test_pooled_seeds_find_what_two_seeds_alone_do_not():
    generator = np.random.default_rng(7)

    def share_found(shift, is_pooled):
        p_values = []
        for _ in range(30):
            accuracies = 0.7 + 0.02 * (generator.normal(size=(8, 2)) + shift * np.eye(8, 1))
            plain = [_with_accuracies(values, num_examples=1_000) for values in accuracies]
            noise = SeedNoise.pooled(one.values for one in plain) if is_pooled else None
            p_values.append(paired_test(*(Predictor(one.parts, noise) for one in plain[:2])).p_value)
        return np.mean(np.array(p_values) < 0.05)

    assert share_found(0, True) <= 0.1
    assert share_found(4, True) > 0.65 > 0.6 > share_found(4, False)


def test_without_second_seeds_nothing_is_known_of_noise():
    assert SeedNoise.pooled([np.ones(1)]) is None
    assert SeedNoise.pooled([]) is None


def test_importing_is_cheap():
    import subprocess
    import sys

    code = "import sys, pewb.evaluation.paired; assert not {'torch', 'pandas', 'scipy', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
