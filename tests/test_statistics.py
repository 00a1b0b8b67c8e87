import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import tracking.statistics
import tracking.weighted
from lightning_modules.metrics import classification_metrics
from tests.tracking_examples import CLASS_NAMES, example_beats, example_predictions
from tracking.pairing import align, count_flips
from tracking.predictions import make_predictions
from tracking.statistics import (
    bootstrap_metrics,
    draw_resamples,
    explain_no_interval,
    paired_bootstrap,
    point_metrics,
    resample_metrics,
)

OVER_TIME = ("af_burden_mae_record", "sensitivity_AFIB_episode", "precision_AFIB_episode")


def taken(predictions, rows):
    """Some rows of predictions, as often as they are named; every one counts as a record of its own."""
    return make_predictions(
        np.arange(len(rows)),
        predictions.subject_ids[rows],
        predictions.targets[rows],
        predictions.probabilities[rows],
        predictions.class_names,
        predictions.thresholds,
        predictions.exclusive,
        predictions.level,
    )


def of_torchmetrics(predictions):
    return classification_metrics(
        *(predictions.probabilities, predictions.targets, predictions.class_names, predictions.thresholds),
        *("test", predictions.exclusive, predictions.level),
    )


@pytest.mark.parametrize("predictions", [example_predictions(200), example_beats(300)])
def test_statistics_point_values_are_those_of_torchmetrics(predictions):
    found = {f"test/{name}": value for name, value in point_metrics(predictions).items() if name not in OVER_TIME}
    assert found == pytest.approx(of_torchmetrics(predictions), abs=1e-6)


@pytest.mark.parametrize("predictions", [example_predictions(40, records_per_subject=2), example_beats(300)])
def test_statistics_resampled_values_are_those_of_repeated_records(predictions):
    resamples = draw_resamples(predictions, 4, seed=1)
    values = resample_metrics(predictions, resamples)
    for draw, counts in enumerate(resamples.counts):
        rows = np.repeat(np.arange(len(predictions.record_ids)), counts[resamples.subjects])
        found = {f"test/{name}": of_draws[draw] for name, of_draws in values.items() if name not in OVER_TIME}
        assert found == pytest.approx(of_torchmetrics(taken(predictions, rows)), abs=1e-6)


def test_statistics_resamples_keep_subjects_whole():
    predictions = example_predictions(60, records_per_subject=3)
    resamples = draw_resamples(predictions, 50)
    np.testing.assert_array_equal(resamples.subjects.reshape(20, 3).T, np.tile(resamples.subjects[::3], (3, 1)))
    np.testing.assert_array_equal(np.unique(predictions.subject_ids)[resamples.subjects], predictions.subject_ids)
    np.testing.assert_array_equal(resamples.counts.sum(axis=1), 20)


def test_statistics_resamples_are_those_of_a_multinomial():
    counts = draw_resamples(example_predictions(100, records_per_subject=1), 4000).counts
    assert counts.shape == (4000, 100)
    assert counts.mean() == pytest.approx(1)
    # Binomial with n = 100 and p = 1/100.
    assert counts.var() == pytest.approx(0.99, rel=0.02)


def test_statistics_chunks_do_not_matter(monkeypatch):
    predictions = example_predictions(100)
    whole = bootstrap_metrics(predictions, 101)
    monkeypatch.setattr(tracking.weighted, "CHUNK", 700)
    assert bootstrap_metrics(predictions, 101) == whole


def test_statistics_resampled_values_are_those_of_the_weighted_rows():
    """Values and percentiles of an independent implementation, which weighed every record of every resample."""
    predictions = example_predictions(2200)
    values, resampled = point_metrics(predictions), resample_metrics(predictions, draw_resamples(predictions, 2000))
    for name, *expected in (
        ("auroc_macro", 0.8560069335540689, 0.8471937204872599, 0.8646544221743682),
        ("average_precision_macro", 0.6750780269383168, 0.6554333849064914, 0.6954269512130147),
        ("f1_macro", 0.6126396508900263, 0.5987373714020734, 0.6261526780005077),
        ("auroc_HYP", 0.8464561442079497, 0.8190179439584195, 0.8704204704458414),
    ):
        found = (values[name], *np.percentile(resampled[name], (2.5, 97.5)))
        assert found == pytest.approx(expected, abs=1e-12)


def test_statistics_intervals_hold_their_values():
    for estimate in bootstrap_metrics(example_predictions(200), 50).values():
        assert estimate.low < estimate.value < estimate.high or estimate.value == pytest.approx(estimate.low, abs=0.02)


def test_statistics_names_carry_the_level():
    estimates = bootstrap_metrics(example_beats(300), 20)
    assert {"test/auroc_macro_beat", "test/f1_weighted_beat", "test/sensitivity_AFIB_beat"} <= set(estimates)
    assert "test/auroc_macro" not in estimates
    assert "test/sensitivity_AFIB" in bootstrap_metrics(replace(example_beats(300), level="record"), 20)


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
        assert estimate.low < estimate.high
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


def test_statistics_flips_are_the_share_of_decisions_that_differ():
    a = example_predictions(100)
    other = a.probabilities.copy()
    # Row 3 says the contrary in all five classes.
    other[3] = np.where(a.decisions[3], 0.0, 1.0)
    order = np.random.default_rng(0).permutation(100)
    shuffled = taken(replace(a, probabilities=other), order)
    shuffled = replace(shuffled, record_ids=a.record_ids[order])
    assert count_flips(a, a) == 0
    assert count_flips(a, shuffled) == pytest.approx(1 / 100)


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
            "100 rows have other targets, the first is of record '1'",
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
    assert resamples.counts.shape == (500, 40)
    assert (resamples.counts[:, 0] > 0).all()
    assert resamples.n_redrawn == pytest.approx(500 * 0.363 / 0.637, rel=0.25)
    assert all(np.isfinite([item.low, item.high]).all() for item in bootstrap_metrics(rare_class(), 50).values())


def test_statistics_refuse_an_absent_class():
    predictions = example_predictions(50)
    targets = predictions.targets.copy()
    targets[:, 4] = 0
    with pytest.raises(ValueError, match=r"class 'HYP' has 0 positive records among 50.*datamodule\.folds"):
        bootstrap_metrics(replace(predictions, targets=targets), 10)


@pytest.mark.parametrize("n_subjects", [1, 9])
def test_statistics_give_no_interval_over_few_subjects(n_subjects):
    predictions = example_predictions(90, records_per_subject=90 // n_subjects)
    estimates, differences = bootstrap_metrics(predictions, 10), paired_bootstrap(predictions, predictions, 10)
    assert {name: estimate.value for name, estimate in estimates.items()} == {
        f"test/{name}": value for name, value in point_metrics(predictions).items()
    }
    for estimate in (*estimates.values(), *differences.values()):
        assert np.isnan([estimate.low, estimate.high]).all()
    with pytest.raises(ValueError, match=f"no interval: {n_subjects} test subjects, fewer than 10"):
        draw_resamples(predictions)
    assert explain_no_interval(n_subjects) == f"no interval: {n_subjects} test subjects, fewer than 10"


def test_statistics_give_an_interval_over_ten_subjects():
    estimate = bootstrap_metrics(example_predictions(100, records_per_subject=10), 50)["test/auroc_macro"]
    assert estimate.low < estimate.value < estimate.high
    assert explain_no_interval(10) == ""


def test_statistics_leave_what_one_subject_cannot_show_undefined():
    beats = example_beats(100, n_subjects=1)
    sick = replace(beats, targets=np.tile(np.float32([0, 1]), (100, 1)))
    metrics = point_metrics(sick)
    assert metrics["accuracy_beat"] == metrics["sensitivity_AFIB_beat"] == pytest.approx(sick.decisions[:, 1].mean())
    undefined = ("auroc_AFIB_beat", "auroc_macro_beat", "specificity_AFIB_beat", "average_precision_other_beat")
    assert np.isnan([metrics[name] for name in undefined]).all()
    assert np.isfinite([metrics[f"{name}_weighted_beat"] for name in ("f1", "precision", "recall")]).all()


def test_statistics_pair_beats_by_record_and_time():
    beats = example_beats(300)
    order = np.random.default_rng(0).permutation(300)
    other = replace(beats, thresholds=np.tile([0.3, 0.7], (300, 1)) + np.arange(300)[:, None] / 1000)
    mixed = replace(
        other,
        **{
            name: getattr(other, name)[order]
            for name in ("record_ids", "subject_ids", "targets", "probabilities", "thresholds", "times_s")
        },
    )
    found = align(beats, mixed)
    for name in ("record_ids", "times_s", "probabilities", "thresholds"):
        np.testing.assert_array_equal(getattr(found, name), getattr(other, name))
    assert (found.exclusive, found.level) == (True, "beat")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times_s": np.arange(300) * 0.8 + 0.1}, "rows of the same records lie at other times"),
        ({"exclusive": False}, "cannot pair exclusive True with False"),
        ({"level": "window"}, "cannot pair level beat with window"),
    ],
)
def test_statistics_pairing_refuses_other_beats(changes, message):
    with pytest.raises(ValueError, match=message):
        align(example_beats(300), replace(example_beats(300), **changes))


def test_statistics_pairing_refuses_records_without_times_for_records_with():
    single = example_beats(30, n_subjects=30)
    with pytest.raises(ValueError, match="other times"):
        align(single, replace(single, times_s=None))


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


def test_statistics_bootstrap_of_many_beats_is_fast():
    """A tenth of the 1.2 million beats that are promised in 10 s; most of the time goes into the groups of scores."""
    predictions = example_beats(120_000, n_subjects=25)
    start = time.process_time()
    bootstrap_metrics(predictions, 2000)
    assert time.process_time() - start < 15
