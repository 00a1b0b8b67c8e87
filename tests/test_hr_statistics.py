from dataclasses import fields, replace

import numpy as np
import pytest

from tests.tracking_examples import example_rates
from tracking.hr_tallies import GROUPS
from tracking.intervals import subject_interval
from tracking.statistics import bootstrap_metrics, draw_resamples, paired_bootstrap, point_metrics


def by_hand(truth, estimate, snr_db):
    """The same figures, one formula each."""
    error = estimate - truth
    figures = {
        "hr_mae_bpm": np.abs(error).mean(),
        "hr_rmse_bpm": np.sqrt((error**2).mean()),
        "hr_mape_percent": 100 * (np.abs(error) / truth).mean(),
        "hr_bias_bpm": error.mean(),
        "hr_pearson_r": np.corrcoef(truth, estimate)[0, 1],
        "hr_snr_db": np.nanmean(snr_db),
    }
    for name, (low, high) in GROUPS.items():
        inside = (truth >= low) & (truth < high)
        figures[f"hr_mae_bpm_{name}"] = np.abs(error[inside]).mean() if inside.any() else np.nan
    return figures


def all_by_hand(rates, windows=slice(None), videos=slice(None)):
    level = by_hand(rates.true_bpm[windows], rates.bpm[windows], rates.snr_db[windows])
    whole = by_hand(rates.video_true_bpm[videos], rates.video_bpm[videos], rates.video_snr_db[videos])
    return {f"{name}_window": value for name, value in level.items()} | {
        f"{name}_video": value for name, value in whole.items()
    }


def test_point_metrics_are_those_of_the_formulas():
    rates = example_rates()
    found = point_metrics(rates)
    expected = all_by_hand(rates)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, err_msg=name)


def test_groups_are_those_of_p1():
    bpm = np.array([76.9, 77.0, 89.9, 90.0])
    rates = example_rates(4, n_windows=1)
    rates = replace(rates, true_bpm=bpm, bpm=bpm + np.array([1, 2, 4, 8]), video_true_bpm=bpm, video_bpm=bpm)
    found = point_metrics(rates)
    assert [round(found[f"hr_mae_bpm_{name}_window"], 9) for name in ("low", "middle", "high", "not_low")] == [
        1,
        3,
        8,
        pytest.approx(14 / 3),
    ]


def test_the_interval_is_that_of_drawing_subjects_one_by_one():
    rates = example_rates(14)
    resamples = draw_resamples(rates, 300, seed=3)
    owners = resamples.subjects

    def draw(counts):
        windows = np.concatenate([np.flatnonzero(owners == who) for who, n in enumerate(counts) for _ in range(n)])
        return all_by_hand(rates, windows, np.repeat(np.arange(14), counts))

    drawn = [draw(counts) for counts in resamples.counts]
    left_out = [draw(counts) for counts in 1 - np.eye(14, dtype=int)]
    found = bootstrap_metrics(rates, 300, seed=3)
    for name in ("hr_mae_bpm_window", "hr_rmse_bpm_video", "hr_pearson_r_window", "hr_snr_db_video"):
        values, without = (np.array([metrics[name] for metrics in side]) for side in (drawn, left_out))
        low, high = subject_interval(values, 14, left_out=without)
        estimate = found[f"test/{name}"]
        np.testing.assert_allclose([estimate.low, estimate.high], [low, high], rtol=1e-7, err_msg=name)


def test_a_group_that_is_absent_from_a_draw_is_left_out_of_its_interval():
    estimate = bootstrap_metrics(example_rates(12), 200)["test/hr_mae_bpm_middle_video"]
    assert estimate.low <= estimate.value <= estimate.high


def test_a_constant_answer_has_no_correlation():
    rates = example_rates()
    constant = replace(rates, bpm=np.full_like(rates.bpm, 80.0), video_bpm=np.full_like(rates.video_bpm, 80.0))
    found = point_metrics(replace(constant, snr_db=np.full_like(rates.snr_db, np.nan)))
    assert np.isnan([found["hr_pearson_r_window"], found["hr_pearson_r_video"], found["hr_snr_db_window"]]).all()
    assert found["hr_mae_bpm_video"] == pytest.approx(np.abs(rates.video_true_bpm - 80).mean())


def test_a_paired_difference_of_an_error_has_its_sign():
    good, bad = example_rates(), example_rates(noise_seed=2, error_bpm=6)
    change = paired_bootstrap(bad, good, 500)["test/hr_mae_bpm_window"]
    assert 0 < change.low < change.value < change.high
    back = paired_bootstrap(good, bad, 500)["test/hr_mae_bpm_window"]
    np.testing.assert_allclose([back.low, back.value, back.high], [-change.high, -change.value, -change.low])


def test_ten_subjects_are_needed_for_an_interval():
    few = bootstrap_metrics(example_rates(9), 200)["test/hr_mae_bpm_video"]
    assert np.isfinite(few.value)
    assert np.isnan([few.low, few.high]).all()
    assert np.isfinite(bootstrap_metrics(example_rates(10), 200)["test/hr_mae_bpm_video"].low)


def test_the_order_of_windows_does_not_matter():
    rates = example_rates()
    order = np.random.default_rng(0).permutation(len(rates.record_ids))
    mixed = replace(
        rates,
        **{item.name: getattr(rates, item.name)[order] for item in fields(rates) if not item.name.startswith("video_")},
    )
    a, b = (bootstrap_metrics(item, 200) for item in (rates, mixed))
    for name, estimate in a.items():
        np.testing.assert_allclose([estimate.low, estimate.high], [b[name].low, b[name].high], err_msg=name)
