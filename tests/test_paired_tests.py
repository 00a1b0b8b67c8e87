import itertools
import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from tests.tracking_examples import CLASS_NAMES, example_beats, example_predictions
from tracking.paired_tests import delong, mcnemar
from tracking.statistics import paired_bootstrap


def slow_delong(a, b, targets):
    """Variance of the difference of two U statistics, from every pair of records (DeLong 1988, eq. 2-6)."""
    positive, negative = np.flatnonzero(targets), np.flatnonzero(1 - targets)
    kernels = []
    for scores in (a, b):
        kernel = np.zeros((len(positive), len(negative)))
        for (i, p), (j, q) in itertools.product(enumerate(positive), enumerate(negative)):
            kernel[i, j] = 1.0 if scores[p] > scores[q] else 0.5 if scores[p] == scores[q] else 0.0
        kernels.append(kernel)
    areas = [kernel.mean() for kernel in kernels]
    of_positives = np.array([kernel.mean(axis=1) for kernel in kernels])
    of_negatives = np.array([kernel.mean(axis=0) for kernel in kernels])
    spread = np.cov(of_positives) / len(positive) + np.cov(of_negatives) / len(negative)
    return areas, spread[0, 0] + spread[1, 1] - 2 * spread[0, 1]


@pytest.mark.parametrize("decimals", [8, 1, 0])
def test_delong_is_that_of_every_pair(decimals):
    rng = np.random.default_rng(decimals)
    targets = (rng.random(50) < 0.3).astype(float)
    a = np.round(rng.normal(size=50) + targets, decimals)
    b = np.round(0.5 * a + rng.normal(size=50) + 0.5 * targets, decimals)
    (result,) = delong(a[:, None], b[:, None], targets[:, None])
    areas, variance = slow_delong(a, b, targets)
    assert (result.auroc_a, result.auroc_b) == pytest.approx(areas)
    assert result.se == pytest.approx(np.sqrt(variance))
    assert result.auroc_a == pytest.approx(roc_auc_score(targets, a))
    assert result.p == pytest.approx(2 * stats.norm.sf(abs(areas[0] - areas[1]) / np.sqrt(variance)))
    assert result.high - result.low == pytest.approx(2 * 1.959964 * result.se, rel=1e-6)


def test_delong_has_the_binormal_spread():
    """The standard error is the standard deviation of the difference over many binormal data sets."""
    rng = np.random.default_rng(21)
    differences, errors, p_values = [], [], []
    targets = np.repeat([0.0, 1.0], [120, 80])
    for _ in range(400):
        shared = rng.normal(size=200)
        a = np.sqrt(0.5) * (shared + rng.normal(size=200)) + targets
        b = np.sqrt(0.5) * (shared + rng.normal(size=200)) + targets
        (result,) = delong(a[:, None], b[:, None], targets[:, None])
        differences.append(result.difference)
        errors.append(result.se)
        p_values.append(result.p)
    assert np.mean(errors) == pytest.approx(np.std(differences), rel=0.1)
    # No true difference: p is uniform.
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_delong_is_that_of_a_published_reading():
    """Ratings 1 to 5 of 58 normal and 51 abnormal images: an area of .893 with a standard error of .032.

    Hanley, McNeil: The meaning and use of the area under a receiver operating characteristic (ROC) curve. Radiology
    143 (1982), table I. doi:10.1148/radiology.143.1.7063747
    """
    ratings = np.concatenate([np.repeat(np.arange(1, 6), counts) for counts in ([33, 6, 6, 11, 2], [3, 2, 2, 11, 33])])
    targets = np.repeat([0.0, 1.0], [58, 51])
    # Against answers that are all the same, whose area is 1/2 for certain.
    (result,) = delong(ratings[:, None].astype(float), np.zeros((109, 1)), targets[:, None])
    assert (round(result.auroc_a, 3), result.auroc_b) == (0.893, 0.5)
    # Theirs takes scores for exponential, DeLong's does not.
    assert result.se == pytest.approx(0.032, abs=0.0015)


def test_delong_agrees_with_the_bootstrap():
    a = example_predictions(600, noise_seed=1, records_per_subject=1)
    b = example_predictions(600, noise_seed=2, records_per_subject=1, signal=1.2)
    paired = paired_bootstrap(a, b, 1000)
    for name, result in zip(CLASS_NAMES, delong(a.probabilities, b.probabilities, a.targets), strict=True):
        estimate = paired[f"test/auroc_{name}"]
        assert result.difference == pytest.approx(estimate.value)
        assert estimate.high - estimate.low == pytest.approx(result.high - result.low, rel=0.15)


def test_delong_of_equal_scores_is_no_difference():
    a = example_predictions(50)
    for result in delong(a.probabilities, a.probabilities, a.targets):
        assert (result.difference, result.se, result.p) == (0, 0, 1)


def test_delong_without_spread_is_certain():
    targets = np.array([[0.0], [0.0], [1.0], [1.0]])
    (result,) = delong(targets, 1 - targets, targets)
    assert (result.difference, result.se, result.p) == (1, 0, 0)


def test_delong_refuses_too_few_records():
    with pytest.raises(ValueError, match="1 positive and 3 negative"):
        delong(np.ones((4, 1)), np.ones((4, 1)), np.array([[1.0], [0], [0], [0]]))
    with pytest.raises(ValueError, match="one shape"):
        delong(np.ones((4, 1)), np.ones((3, 1)), np.ones((4, 1)))


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 9), (12, 12), (40, 15)])
def test_mcnemar_has_its_closed_form(only_a, only_b):
    targets = np.ones((only_a + only_b + 10, 1))
    a, b = np.ones_like(targets, dtype=bool), np.ones_like(targets, dtype=bool)
    b[:only_a], a[only_a : only_a + only_b] = False, False
    (result,) = mcnemar(a, b, targets)
    assert (result.only_a_right, result.only_b_right) == (only_a, only_b)
    n = only_a + only_b
    tail = sum(stats.binom.pmf(k, n, 0.5) for k in range(min(only_a, only_b) + 1))
    assert result.p == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_is_that_of_a_published_table():
    """Airway hyper-responsiveness of 21 children before and after: 1 and 7 changed, exact p .070.

    Fagerland, Lydersen, Laake: The McNemar test for binary matched-pairs data. BMC Medical Research Methodology 13
    (2013). doi:10.1186/1471-2288-13-91
    """
    both, only_before, only_after, neither = 1, 1, 7, 12
    before = np.repeat([True, True, False, False], [both, only_before, only_after, neither])
    after = np.repeat([True, False, True, False], [both, only_before, only_after, neither])
    (result,) = mcnemar(before[:, None], after[:, None], np.ones((21, 1)))
    assert (result.only_a_right, result.only_b_right, round(result.p, 3)) == (1, 7, 0.070)


def test_mcnemar_is_that_of_statsmodels():
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    rng = np.random.default_rng(2)
    a, b, targets = (rng.random((80, 1)) < share for share in (0.6, 0.4, 0.5))
    (result,) = mcnemar(a, b, targets.astype(float))
    right = [(a == targets), (b == targets)]
    table = [[(x & y).sum() for y in (right[1], ~right[1])] for x in (right[0], ~right[0])]
    assert result.p == pytest.approx(contingency.mcnemar(table, exact=True).pvalue)


def test_mcnemar_refuses_other_shapes():
    with pytest.raises(ValueError, match="one shape"):
        mcnemar(np.ones((4, 1), bool), np.ones((4, 2), bool), np.ones((4, 1)))


def test_paired_tests_of_many_beats_are_fast():
    """A quarter of 1.2 million beats; a method with a pair for each two of them would take hours."""
    a, b = example_beats(300_000), example_beats(300_000, noise_seed=2)
    start = time.process_time()
    first, last = delong(a.probabilities, b.probabilities, a.targets)
    decisions = mcnemar(a.decisions, b.decisions, a.targets)
    assert time.process_time() - start < 10
    # Of two exclusive classes each is the mirror image of the other.
    assert first.difference == pytest.approx(last.difference, abs=1e-9)
    assert decisions[0] == decisions[1]
    assert last.auroc_a == pytest.approx(roc_auc_score(a.targets[:, 1], a.probabilities[:, 1]))
