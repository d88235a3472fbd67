"""Paired tests against statsmodels and SciPy, under the null, and in what they must satisfy."""

import numpy as np
import pytest

from pewb.evaluation.paired import BOOTSTRAP, MCNEMAR, holm, paired_test, paired_tests


def _from_table(both, only_one, only_other, neither):
    one = [True] * (both + only_one) + [False] * (only_other + neither)
    other = [True] * both + [False] * only_one + [True] * only_other + [False] * neither
    return np.array(one)[:, None], np.array(other)[:, None]


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
        p_values.append(paired_test(one, other).p_value)
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
            test = paired_test(one, other)
            covered[num_seeds] += test.low <= 0.05 <= test.high
    assert min(covered.values()) >= 88


@pytest.mark.parametrize("seeds", [(1, 1), (2, 2), (1, 3), (4, 2)])
def test_the_sides_are_alike_and_the_result_is_the_same_each_time(seeds):
    generator = np.random.default_rng(0)
    one, other = (generator.random((300, count)) < share for count, share in zip(seeds, (0.8, 0.77), strict=True))
    there, back = paired_test(one, other), paired_test(other, one)
    assert there == paired_test(one, other)
    assert back.p_value == there.p_value
    assert (back.difference, back.low, back.high) == pytest.approx((-there.difference, -there.high, -there.low))


@pytest.mark.parametrize("num_seeds", [1, 2, 5])
def test_identical_predictions_do_not_differ(num_seeds):
    correct = np.random.default_rng(1).random((100, num_seeds)) < 0.8
    test = paired_test(correct, correct.copy())
    assert test.difference == 0
    assert test.p_value == pytest.approx(1, abs=0.05)
    assert test.low <= 0 <= test.high


def test_a_row_is_tested_alike_whatever_the_company():
    generator = np.random.default_rng(2)
    best, *others = (generator.random((200, count)) < 0.8 for count in (2, 1, 3, 2))
    assert paired_tests(best, others) == [paired_test(best, other) for other in others]
    single, *rest = (generator.random((200, count)) < 0.8 for count in (1, 1, 3))
    assert [test.test for test in paired_tests(single, rest)] == [MCNEMAR, BOOTSTRAP]


@pytest.mark.parametrize("counts", [(2, 2), (2, 5), (4, 3)])
def test_where_only_seeds_matter_the_interval_is_welchs(counts):
    """A hundred thousand examples leave nothing to chance but the seeds: scipy's t-test says the same."""
    from scipy.stats import ttest_ind

    generator = np.random.default_rng(4)
    one, other = (np.arange(100_000)[:, None] < 100_000 * generator.normal(0.8, 0.02, count) for count in counts)
    test = paired_test(one, other)
    welch = ttest_ind(one.mean(0), other.mean(0), equal_var=False)
    interval = welch.confidence_interval()
    assert (test.low, test.high) == pytest.approx(
        (interval.low, interval.high), abs=0.1 * (interval.high - interval.low)
    )
    assert test.p_value == pytest.approx(welch.pvalue, abs=0.03)


def test_importing_is_cheap():
    import subprocess
    import sys

    code = "import sys, pewb.evaluation.paired, pewb.evaluation.references; assert not {'torch', 'pandas', 'scipy', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
