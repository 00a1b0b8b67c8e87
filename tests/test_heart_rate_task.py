"""From the waves of a net to heart rates, on clips whose pulse is known."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from composition.classification import Classification
from composition.heart_rate import HeartRate
from composition.rate_baselines import colour_pulse, mean_rate
from composition.rate_windows import find_rate_windows
from composition.task import Task
from datamodules.pulse import PulseFilter
from tests.tiny_video import FS, N_FRAMES, TinyVideoData
from tracking.statistics import point_metrics

TASK = HeartRate(PulseFilter(), "fft", window_s=10, parity_windows=4)


@pytest.fixture(scope="module")
def data():
    return TinyVideoData()


def errors(rates):
    return np.abs(rates.bpm - rates.true_bpm).max(), np.abs(rates.video_bpm - rates.video_true_bpm).max()


@pytest.mark.parametrize("method", ["fft", "autocorrelation", "peaks"])
def test_the_true_derivative_gives_the_true_rate(data, method):
    rates = replace(TASK, method=method).read(data, "test", data.targets("test"))
    assert max(errors(rates)) < 1.5
    # 12 s a person: one window of 10 s.
    assert len(rates.bpm) == len(rates.video_bpm) == 11
    assert set(rates.record_ids) == set(data.record_ids("test"))
    assert rates.snr_db.min() > 5


def test_windows_as_long_as_a_clip_are_the_clips(data):
    rates = replace(TASK, window_s=N_FRAMES / FS).read(data, "test", data.targets("test"))
    assert len(rates.bpm) == len(data.hr("test"))
    assert sorted(set(rates.times_s)) == [0.0, 4.0, 8.0]


def test_a_wrong_frame_rate_scales_every_rate(data):
    """P1 takes 30 frames a second for granted: of a video of 25 it sees a heart that beats a fifth too fast."""
    wave = data.targets("test")
    truth, believed = (replace(TASK, assumed_fs=fs).read(data, "test", wave).video_bpm for fs in (None, 36.0))
    slow = truth < 110
    np.testing.assert_allclose(believed[slow] / truth[slow], 36 / FS, rtol=0.02)


def test_counting_peaks_is_coarse(data):
    noisy = data.targets("test") + np.random.default_rng(0).normal(0, 1, data.targets("test").shape)
    by_count = point_metrics(replace(TASK, method="count").read(data, "test", noisy))
    by_fft = point_metrics(TASK.read(data, "test", noisy))
    assert by_count["hr_mae_bpm_window"] > by_fft["hr_mae_bpm_window"]


def test_a_wave_without_a_rate_is_answered_with_the_middle_of_the_band(data, caplog):
    with caplog.at_level(logging.WARNING):
        rates = TASK.read(data, "test", np.zeros_like(data.targets("test")))
    np.testing.assert_allclose(rates.bpm, 60 * np.sqrt(0.75 * 2.5))
    assert "11 of 11 pulse waves show no heart rate" in caplog.text
    assert np.isnan(rates.snr_db).all()


def test_validation_weighs_by_the_error_of_videos(data):
    assert TASK.weigh(data, data.targets("val")) < 1.5
    assert TASK.weigh(data, np.zeros_like(data.targets("val"))) > 10
    some = np.arange(3)
    assert TASK.weigh(data, data.targets("val")[some], some) < 1.5
    assert TASK.headline.named("val") == "val/hr_mae_bpm_video"
    _, metrics = TASK.conclude(data, *(TASK.read(data, side, data.targets(side)) for side in ("val", "test")))
    assert metrics["val/hr_mae_bpm_video"] < 1.5
    assert np.isfinite(list(metrics.values())).all()


def test_a_video_of_known_mean_rate_is_held_to_it(data, monkeypatch):
    monkeypatch.setattr(data, "video_hr", lambda split: {data.record_ids(split)[0]: 66.0})
    windows = find_rate_windows(data, "test", 10)
    by_video = dict(zip(windows.spans, windows.video_true_bpm, strict=True))
    first, other = data.record_ids("test")[0], data.record_ids("test")[-1]
    assert by_video[first] == 66.0
    assert by_video[other] == pytest.approx(data.hr("test")[-1])


def test_parity_counts_beats(data):
    wave = data.targets("test")[:4]
    noisy = wave + np.random.default_rng(0).normal(0, 1.5, wave.shape).astype(np.float32)
    same = TASK.check_parity(data, None, wave, wave, "float32")
    assert [check.status for check in same] == ["PASS", "PASS"]
    assert any(check.status == "FAIL" for check in TASK.check_parity(data, None, wave, noisy, "float32"))


def test_the_mean_rate_is_that_of_training(data):
    rates = mean_rate(data, TASK)("test")
    np.testing.assert_allclose(rates.video_bpm, data.hr("train").mean())
    assert np.isnan(rates.video_snr_db).all()


@pytest.mark.parametrize("method", ["green", "chrom", "pos"])
def test_colours_give_the_rate(data, method):
    rates = colour_pulse(data, TASK, method)("test")
    model = TASK.read(data, "test", data.targets("test"))
    np.testing.assert_array_equal(rates.times_s, model.times_s)
    assert np.median(np.abs(rates.video_bpm - rates.video_true_bpm)) < 2


def test_a_file_says_how_to_feed_it(data):
    facts = TASK.describe_input(data)
    assert (facts["task"], facts["fs"], facts["n_frames"], facts["output"]) == ("heart_rate", 30, 120, "bvp_derivative")
    assert tuple(TASK.make_example(data).shape) == (2, 120, 6, 10, 10)


def test_both_tasks_are_of_one_shape():
    names = {name for name in dir(Classification) if not name.startswith("_")} - {"threshold_rule"}
    wanted = {name for name in dir(Task) if not name.startswith("_")}
    assert wanted - {"parity_windows"} <= names & {name for name in dir(HeartRate) if not name.startswith("_")}
