import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

import tracking.weighted
from tracking.weighted import count_scores, weighted_areas

N = 60
TARGETS = (np.random.default_rng(6).random(N) < 0.4).astype(np.float32)


def scores_of(kind):
    scores = np.random.default_rng(3).normal(size=N)
    return {"distinct": scores, "ties": np.round(scores * 2) / 2, "constant": np.zeros(N)}[kind]


def drawn_weights(n=N):
    """Integer weights as of a bootstrap, zeros included, and arbitrary ones."""
    counts = np.random.default_rng(4).integers(0, 4, size=(5, n)).astype(float)
    return np.concatenate([np.ones((1, n)), counts, np.random.default_rng(5).random((5, n))])


@pytest.mark.parametrize("dense_from", [0, np.inf])
@pytest.mark.parametrize("kind", ["distinct", "ties", "constant"])
def test_weighted_areas_are_those_of_sklearn(kind, dense_from, monkeypatch):
    monkeypatch.setattr(tracking.weighted, "DENSE_FROM", dense_from)
    scores, weights = scores_of(kind), drawn_weights()
    auroc, precision = weighted_areas(count_scores(TARGETS, scores, np.arange(N), N), weights)
    np.testing.assert_allclose(auroc, [roc_auc_score(TARGETS, scores, sample_weight=w) for w in weights], atol=1e-12)
    expected = [average_precision_score(TARGETS, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(precision, expected, atol=1e-12)


def test_weighted_areas_weigh_subjects():
    subjects, weights = np.arange(N) % 7, drawn_weights(7)
    auroc, _ = weighted_areas(count_scores(TARGETS, scores_of("ties"), subjects, 7), weights)
    expected = [roc_auc_score(TARGETS, scores_of("ties"), sample_weight=w[subjects]) for w in weights]
    np.testing.assert_allclose(auroc, expected, atol=1e-12)


def test_weighted_areas_are_undefined_without_a_class():
    counts = count_scores(TARGETS, scores_of("distinct"), np.arange(N), N)
    auroc, precision = weighted_areas(counts, np.stack([TARGETS, 1 - TARGETS, 0 * TARGETS]).astype(float))
    assert np.isnan(auroc).all()
    assert np.isnan(precision).tolist() == [False, True, True]


@pytest.mark.parametrize("share", [0.4, 0.01])
def test_weighted_areas_of_grouped_scores_keep_their_bounds(share):
    rng = np.random.default_rng(0)
    targets, subjects = (rng.random(50_000) < share).astype(float), np.arange(50_000) % 10
    scores = rng.normal(size=50_000) + targets + rng.normal(size=10)[subjects]
    weights = np.concatenate([np.ones((1, 10)), rng.multinomial(10, np.full(10, 0.1), size=20)]).astype(float)
    exact = weighted_areas(count_scores(targets, scores, subjects, 10), weights)
    counts = count_scores(targets, scores, subjects, 10, max_groups=256)
    assert counts.rows.shape[0] <= 257
    grouped = weighted_areas(counts, weights)
    positives, rows = weights @ counts.positives.T, weights @ counts.rows.T
    hit = positives / positives.sum(axis=1, keepdims=True)
    missed = (rows - positives) / (rows - positives).sum(axis=1, keepdims=True)
    auroc_bound = 0.5 * (hit * missed).sum(axis=1)
    precision_bound = (hit * rows / np.maximum(np.cumsum(rows, axis=1), 1)).sum(axis=1)
    assert auroc_bound[0] <= 1 / 256
    for bound, one, other in zip((auroc_bound, precision_bound), exact, grouped, strict=True):
        assert (np.abs(one - other) <= bound).all()
        # Joining is seen, and costs far less than the bound in practice: 64 times less yet with 2^14 groups.
        assert (one != other).all()
        assert np.abs(one - other).max() < 0.005


def test_weighted_counts_never_part_tied_scores():
    rng = np.random.default_rng(1)
    scores, subjects = np.round(rng.normal(size=5000), 2), np.arange(5000) % 5
    targets = (rng.random(5000) < 0.3).astype(float)
    counts = count_scores(targets, scores, subjects, 5, max_groups=100)
    ends = np.cumsum(counts.rows.sum(axis=1))
    of_scores = np.cumsum(np.unique(-scores, return_counts=True)[1])
    assert set(ends) <= set(of_scores)


def test_weighted_counts_leave_few_scores_alone():
    scores = np.arange(100) / 100
    grouped = count_scores(np.arange(100) % 2, scores, np.zeros(100, int), 1, max_groups=100)
    np.testing.assert_array_equal(grouped.rows, np.ones((100, 1)))
