import numpy as np
import pytest

from lightning_modules.baselines import irregularity, predict_irregularity, predict_prior


def rr_windows(rng, n, spread):
    return (0.8 * (1 + spread * rng.standard_normal((n, 25)))).astype(np.float32)


def test_predict_prior_gives_the_shares_of_training():
    targets = np.array([[1, 0], [1, 0], [1, 0], [0, 1]])
    assert np.array_equal(predict_prior(targets, 3), [[0.75, 0.25]] * 3)


def test_irregularity_does_not_depend_on_the_heart_rate():
    rr_s = rr_windows(np.random.default_rng(0), 5, 0.1)
    assert irregularity(rr_s) == pytest.approx(irregularity(2 * rr_s), abs=1e-6)


def test_irregularity_of_few_intervals_is_that_of_a_regular_rhythm():
    rr_s = np.full((2, 25), np.nan)
    rr_s[1, :2] = 0.4, 1.2
    assert irregularity(rr_s) == pytest.approx(irregularity(np.ones((2, 25))))


def test_irregularity_median_step_is_blind_to_one_missed_beat():
    regular = np.full((1, 25), 0.8)
    missed = regular.copy()
    missed[0, 12] = 1.6
    assert irregularity(missed)[0, 2] == irregularity(regular)[0, 2]
    assert irregularity(missed)[0, 0] > irregularity(regular)[0, 0]


def test_predict_irregularity_tells_regular_from_irregular():
    rng = np.random.default_rng(0)
    rr_s = np.concatenate([rr_windows(rng, 50, 0.02), rr_windows(rng, 50, 0.2)])
    targets = np.repeat([[1, 0], [0, 1]], 50, axis=0)
    probabilities = predict_irregularity(rr_s[::2], targets[::2], rr_s[1::2])
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert np.array_equal(probabilities[:, 1] > 0.5, targets[1::2, 1] > 0)
