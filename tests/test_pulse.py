"""Pulse waves: sums, trends against a dense solve, bands."""

import numpy as np
import pytest

from datamodules.heart_rate import find_rate
from datamodules.pulse import PulseFilter, bandpass, detrend, to_uniform


@pytest.mark.parametrize("n", [3, 4, 5, 90])
def test_pulse_detrend_equals_the_dense_solve(n):
    waves = np.random.default_rng(0).standard_normal((2, 3, n)).cumsum(axis=-1)
    differences = np.diff(np.eye(n), 2, axis=0)
    trend = np.linalg.solve(np.eye(n) + 100.0**2 * differences.T @ differences, waves.reshape(-1, n).T).T
    np.testing.assert_allclose(detrend(waves), waves - trend.reshape(waves.shape), atol=1e-9)


def test_pulse_detrend_takes_lines_off_and_nothing_else_from_fast_waves():
    times = np.arange(300) / 30
    beat = np.sin(2 * np.pi * 2 * times)
    np.testing.assert_allclose(detrend(beat + 5 * times - 2)[30:-30], beat[30:-30], atol=0.05)
    np.testing.assert_allclose(detrend(beat + 7, 0), beat - beat.mean(), atol=1e-12)


def test_pulse_detrend_takes_memory_in_proportion_to_the_length():
    """The dense matrix of these two hours would take 350 GB."""
    assert np.isfinite(detrend(np.random.default_rng(0).standard_normal(2 * 3600 * 30))).all()


def test_pulse_bandpass_keeps_the_band_and_no_delay():
    times = np.arange(900) / 30
    slow, beat, fast = (np.sin(2 * np.pi * f * times) for f in (0.05, 1.2, 10))
    wave = bandpass(slow + beat + fast, 30, order=2)
    np.testing.assert_allclose(wave[100:-100], beat[100:-100], atol=0.12)


@pytest.mark.parametrize("fs", [17.0, 25.0, 30.0, 60.0])
def test_pulse_filter_turns_a_derivative_into_its_wave(fs):
    times = np.arange(round(20 * fs)) / fs
    beat = np.sin(2 * np.pi * 1.1 * times)
    wave = PulseFilter()(np.diff(beat, prepend=0) + 0.01, fs)
    middle = slice(len(wave) // 4, -len(wave) // 4)
    assert np.corrcoef(wave[middle], beat[middle])[0, 1] > 0.99


def test_pulse_filter_takes_frames_that_come_when_they_like():
    random = np.random.default_rng(0)
    steps = random.uniform(0.4, 1.6, 600) / 25
    times = np.cumsum(steps)
    wave = np.sin(2 * np.pi * 1.4 * times)
    derivative = np.diff(wave, prepend=wave[0])
    resampled = PulseFilter()(derivative, 30, times_s=times)
    assert find_rate(resampled, 30) == pytest.approx(84, abs=0.5)
    assert len(resampled) == pytest.approx(30 * (times[-1] - times[0]), abs=2)
    # Counted as 30 frames a second they would be another heart.
    assert abs(find_rate(PulseFilter()(derivative, 30), 30) - 84) > 5


def test_pulse_to_uniform_keeps_an_even_rate():
    waves = np.random.default_rng(0).standard_normal((2, 50))
    np.testing.assert_allclose(to_uniform(waves, 3 + np.arange(50) / 30, 30), waves, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PulseFilter()([0.0, np.nan] * 30, 30), "30 of 60 samples are not finite"),
        (lambda: PulseFilter()(np.zeros(60), 0), "fs=0 Hz must be above 0: check the frame rate"),
        (lambda: PulseFilter()(np.zeros(60), float("nan")), "fs=nan Hz"),
        (lambda: PulseFilter()(np.zeros(9), 30), "9 samples are too few: a band-pass of order 1 needs 10"),
        (lambda: PulseFilter(band_hz=(0.75, 16))(np.zeros(60), 30), "half of fs=30 Hz"),
        (lambda: PulseFilter(band_hz=(2, 1))(np.zeros(60), 30), r"band_hz \(2, 1\) must lie between"),
        (lambda: PulseFilter()(np.zeros(3), 30, times_s=[0, 0.2, 0.1]), "must increase"),
        (lambda: to_uniform(np.zeros(3), [0, 1], 30), "one for each of 3 frames"),
    ],
)
def test_pulse_refuses_what_is_no_wave(call, message):
    with pytest.raises(ValueError, match=message):
        call()
