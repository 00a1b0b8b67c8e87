import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

import tracking.statistics
from tests.tracking_examples import CLASS_NAMES, example_predictions
from tracking.predictions import make_predictions
from tracking.statistics import align, bootstrap_metrics, draw_resamples, paired_bootstrap
from tracking.weighted import weighted_auroc, weighted_average_precision, weighted_f1

N = 60


def scores_of(kind):
    scores = np.random.default_rng(3).normal(size=N)
    return {"distinct": scores, "ties": np.round(scores * 2) / 2, "constant": np.zeros(N)}[kind]


def drawn_weights():
    """Integer weights as of a bootstrap, zeros included, and arbitrary ones."""
    counts = np.random.default_rng(4).integers(0, 4, size=(N, 5)).astype(float)
    return np.concatenate([np.ones((N, 1)), counts, np.random.default_rng(5).random((N, 5))], axis=1)


TARGETS = (np.random.default_rng(6).random(N) < 0.4).astype(np.float32)


@pytest.mark.parametrize("kind", ["distinct", "ties", "constant"])
def test_statistics_weighted_auroc_is_that_of_sklearn(kind):
    scores, weights = scores_of(kind), drawn_weights()
    expected = [roc_auc_score(TARGETS, scores, sample_weight=w) for w in weights.T]
    np.testing.assert_allclose(weighted_auroc(TARGETS, scores, weights), expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["distinct", "ties", "constant"])
def test_statistics_weighted_average_precision_is_that_of_sklearn(kind):
    scores, weights = scores_of(kind), drawn_weights()
    expected = [average_precision_score(TARGETS, scores, sample_weight=w) for w in weights.T]
    np.testing.assert_allclose(weighted_average_precision(TARGETS, scores, weights), expected, atol=1e-12)


@pytest.mark.parametrize("threshold", [-10, 0.3, 10])
def test_statistics_weighted_f1_is_that_of_sklearn(threshold):
    weights, decisions = drawn_weights(), scores_of("distinct") >= threshold
    expected = [f1_score(TARGETS, decisions, sample_weight=w, zero_division=0) for w in weights.T]
    np.testing.assert_allclose(weighted_f1(TARGETS, decisions, weights), expected, atol=1e-12)


def test_statistics_are_undefined_without_a_class():
    nothing = np.zeros((N, 1))
    assert np.isnan(weighted_auroc(TARGETS, scores_of("distinct"), TARGETS[:, None].astype(float)))
    assert np.isnan(weighted_auroc(TARGETS, scores_of("distinct"), nothing))
    assert np.isnan(weighted_average_precision(TARGETS, scores_of("distinct"), nothing))
    assert weighted_f1(TARGETS, scores_of("distinct") > 0, nothing) == 0


def test_statistics_weights_are_repeated_records():
    predictions = example_predictions(40, records_per_subject=1)
    resamples = draw_resamples(predictions, 8, seed=1)
    values = tracking.statistics._resampled(predictions, resamples)
    for draw in range(8):
        records = np.repeat(np.arange(40), resamples.counts[resamples.subject_of_record, draw])
        for column, name in enumerate(CLASS_NAMES):
            expected = roc_auc_score(predictions.targets[records, column], predictions.probabilities[records, column])
            assert values[f"auroc_{name}"][draw] == pytest.approx(expected, abs=1e-12)


def test_statistics_resamples_keep_subjects_whole():
    predictions = example_predictions(60, records_per_subject=3)
    for weights in draw_resamples(predictions, 50).weights():
        by_subject = weights.reshape(20, 3, -1)
        np.testing.assert_array_equal(by_subject.min(axis=1), by_subject.max(axis=1))
        np.testing.assert_array_equal(weights.sum(axis=0), 60)


def test_statistics_resamples_are_those_of_a_multinomial():
    counts = draw_resamples(example_predictions(100, records_per_subject=1), 4000).counts
    assert counts.shape == (100, 4000)
    assert counts.mean() == pytest.approx(1)
    # Binomial with n = 100 and p = 1/100.
    assert counts.var() == pytest.approx(0.99, rel=0.02)


def test_statistics_chunks_do_not_matter(monkeypatch):
    predictions = example_predictions(100)
    whole = bootstrap_metrics(predictions, 101)
    monkeypatch.setattr(tracking.statistics, "CHUNK", 700)
    assert bootstrap_metrics(predictions, 101) == whole


def test_statistics_point_estimates_are_those_of_sklearn():
    predictions = example_predictions(200)
    estimates = bootstrap_metrics(predictions, 50)
    targets, probabilities = predictions.targets, predictions.probabilities
    assert set(estimates) == {
        "test/auroc_macro",
        "test/average_precision_macro",
        "test/f1_macro",
        *(f"test/auroc_{name}" for name in CLASS_NAMES),
    }
    assert estimates["test/auroc_macro"].value == pytest.approx(roc_auc_score(targets, probabilities))
    assert estimates["test/average_precision_macro"].value == pytest.approx(
        average_precision_score(targets, probabilities)
    )
    assert estimates["test/f1_macro"].value == pytest.approx(f1_score(targets, probabilities >= 0.5, average="macro"))
    for estimate in estimates.values():
        assert estimate.low < estimate.value < estimate.high


def test_statistics_bootstrap_depends_on_the_seed_alone():
    predictions = example_predictions(100)
    assert bootstrap_metrics(predictions, 100, seed=5) == bootstrap_metrics(predictions, 100, seed=5)
    assert bootstrap_metrics(predictions, 100, seed=5) != bootstrap_metrics(predictions, 100, seed=6)


def test_statistics_interval_covers_the_truth():
    """Binormal AUROC, whose true value is known, with two correlated records a subject."""
    signal, truth = 1.0, stats.norm.cdf(1 / np.sqrt(2))
    rng = np.random.default_rng(11)
    inside = 0
    for _ in range(200):
        targets = np.repeat(rng.random(80) < 0.4, 2)
        shared = np.repeat(rng.normal(size=80), 2)
        scores = np.sqrt(0.7) * shared + np.sqrt(0.3) * rng.normal(size=160) + signal * targets
        predictions = make_predictions(
            np.arange(160),
            np.arange(160) // 2,
            targets[:, None],
            stats.norm.cdf(scores)[:, None],
            ["A"],
            [0.5],
        )
        estimate = bootstrap_metrics(predictions, 300)["test/auroc_A"]
        inside += estimate.low <= truth <= estimate.high
    assert 0.90 <= inside / 200 <= 0.99


def test_statistics_interval_widens_with_records_of_the_same_subject():
    single = example_predictions(200, records_per_subject=1)
    doubled = make_predictions(
        np.arange(400),
        np.tile(single.subject_ids, 2),
        np.tile(single.targets, (2, 1)),
        np.tile(single.probabilities, (2, 1)),
        single.class_names,
        single.thresholds,
    )
    one, two = (bootstrap_metrics(item, 400)["test/auroc_macro"] for item in (single, doubled))
    # The same records twice are no new evidence.
    assert (two.low, two.high) == pytest.approx((one.low, one.high), abs=1e-12)


def test_statistics_paired_interval_uses_the_same_resamples():
    a, b = example_predictions(200, noise_seed=1), example_predictions(200, noise_seed=2)
    same = paired_bootstrap(a, a, 100)
    assert all((item.value, item.low, item.high) == (0, 0, 0) for item in same.values())
    forward, backward = paired_bootstrap(a, b, 200), paired_bootstrap(b, a, 200)
    for name, estimate in forward.items():
        assert estimate.low < estimate.value < estimate.high
        assert (backward[name].value, backward[name].low) == pytest.approx((-estimate.value, -estimate.high))
    single = bootstrap_metrics(a, 200), bootstrap_metrics(b, 200)
    name = "test/auroc_macro"
    assert forward[name].value == pytest.approx(single[0][name].value - single[1][name].value)


def test_statistics_paired_interval_is_narrow_for_similar_models():
    a = example_predictions(400)
    b = replace(a, probabilities=np.clip(a.probabilities + 0.01 * np.sin(np.arange(2000)).reshape(400, 5), 0, 1))
    paired = paired_bootstrap(a, b, 200)["test/auroc_macro"]
    alone = bootstrap_metrics(a, 200)["test/auroc_macro"]
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)


def test_statistics_paired_interval_covers_a_difference_of_zero():
    """Two equally good models. Over 1,000 data sets the share is .944; of 200 it varies by .016."""
    inside = 0
    for seed in range(200):
        a = example_predictions(150, seed=seed, noise_seed=100_000 + seed, class_names=CLASS_NAMES[:2])
        b = example_predictions(150, seed=seed, noise_seed=200_000 + seed, class_names=CLASS_NAMES[:2])
        estimate = paired_bootstrap(a, b, 200)["test/auroc_macro"]
        inside += estimate.low <= 0 <= estimate.high
    assert 0.90 <= inside / 200 <= 0.99


def test_statistics_pairing_ignores_the_order_of_records():
    a, b = example_predictions(100, noise_seed=1), example_predictions(100, noise_seed=2)
    order = np.random.default_rng(0).permutation(100)
    shuffled = replace(
        b,
        record_ids=b.record_ids[order],
        subject_ids=b.subject_ids[order],
        targets=b.targets[order],
        probabilities=b.probabilities[order],
    )
    np.testing.assert_array_equal(align(a, shuffled).probabilities, b.probabilities)
    assert paired_bootstrap(a, shuffled, 50) == paired_bootstrap(a, b, 50)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"record_ids": np.char.add("x", np.arange(100).astype(str))},
            "different records: 100 only on the first",
        ),
        ({"subject_ids": np.arange(100).astype(str)}, "other subjects"),
        (
            {"targets": 1 - example_predictions(100).targets},
            "100 records have other targets, the first is '1'",
        ),
        ({"class_names": tuple("abcde")}, "cannot pair classes"),
    ],
)
def test_statistics_pairing_refuses_other_records(changes, message):
    a = example_predictions(100)
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(a, replace(a, **changes), 10)


def test_statistics_pairing_refuses_a_missing_record():
    a = example_predictions(100)
    b = make_predictions(
        a.record_ids[1:], a.subject_ids[1:], a.targets[1:], a.probabilities[1:], a.class_names, a.thresholds
    )
    with pytest.raises(ValueError, match=r"1 only on the first side \['1'\], 0 only on the second"):
        paired_bootstrap(a, b, 10)


def rare_class(n=40):
    targets = np.zeros((n, 2))
    targets[::2, 0] = 1
    targets[0, 1] = 1
    scores = np.random.default_rng(8).random((n, 2))
    return make_predictions(np.arange(n), np.arange(n), targets, scores, ["A", "B"], [0.5, 0.5])


def test_statistics_redraw_resamples_that_lack_a_class():
    resamples = draw_resamples(rare_class(), 500)
    # The one subject with class B is absent from (1 - 1/40)^40 = 36 % of all draws.
    assert resamples.counts.shape == (40, 500)
    assert (resamples.counts[0] > 0).all()
    assert resamples.n_redrawn == pytest.approx(500 * 0.363 / 0.637, rel=0.25)
    assert all(np.isfinite([item.low, item.high]).all() for item in bootstrap_metrics(rare_class(), 50).values())


def test_statistics_refuse_an_absent_class():
    predictions = example_predictions(50)
    targets = predictions.targets.copy()
    targets[:, 4] = 0
    with pytest.raises(ValueError, match=r"class 'HYP' has 0 positive records among 50.*datamodule\.folds"):
        bootstrap_metrics(replace(predictions, targets=targets), 10)


def test_statistics_refuse_a_single_subject():
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap_metrics(example_predictions(50, records_per_subject=50), 10)


def test_statistics_refuse_classes_that_never_meet(monkeypatch):
    monkeypatch.setattr(tracking.statistics, "MAX_REDRAWS", 3)
    targets = np.eye(30)
    predictions = make_predictions(
        np.arange(30), np.arange(30), targets, targets, [f"c{i}" for i in range(30)], [0.5] * 30
    )
    with pytest.raises(ValueError, match="too few subjects"):
        draw_resamples(predictions, 100)


def test_statistics_bootstrap_is_fast():
    """2,000 resamples of 2,200 records and 5 classes: promised in 2 s; CPU time, room for a slow machine."""
    predictions = example_predictions(2200)
    start = time.process_time()
    bootstrap_metrics(predictions, 2000)
    assert time.process_time() - start < 4
