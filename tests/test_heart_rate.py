"""Heart rates of waves of known rate: four ways to find one, windows, quality, variability."""

import numpy as np
import pytest

from datamodules.heart_rate import METHODS, cut_windows, find_rate, find_rates, find_variability, signal_to_noise
from datamodules.pulse import PulseFilter
from datamodules.simulated_face import simulate_pulse, simulate_rate


def make_wave(rate_bpm, fs=30.0, seconds=10.0, noise=0.2, n=8):
    """Draw waves with an overtone, as a pulse has one, and the noise of a camera, filtered as a net's output is."""
    random, times = np.random.default_rng(int(rate_bpm)), np.arange(round(seconds * fs)) / fs
    phase = 2 * np.pi * rate_bpm / 60 * times + random.uniform(0, 2 * np.pi, (n, 1))
    wave = np.sin(phase) + 0.3 * np.sin(2 * phase + 1) + noise * random.standard_normal((n, len(times)))
    return PulseFilter()(np.diff(wave, prepend=0, axis=-1), fs)


@pytest.mark.parametrize("fs", [17.0, 30.0, 60.0])
@pytest.mark.parametrize("rate_bpm", [50.0, 71.3, 90.0, 140.0])
@pytest.mark.parametrize(("method", "limit_bpm"), [("fft", 0.7), ("autocorrelation", 1.5), ("peaks", 2.5)])
def test_heart_rate_is_found(method, limit_bpm, fs, rate_bpm):
    rates = find_rate(make_wave(rate_bpm, fs), fs, method)
    assert rates.shape == (8,)
    assert np.abs(rates - rate_bpm).mean() < limit_bpm


def test_heart_rate_fft_is_finer_than_its_bins():
    """10 s resolve 6 beats a minute; a clean wave is placed to a twentieth of that."""
    rates = np.array([61.0, 61.4, 61.8, 62.2])
    times = np.arange(300) / 30
    found = find_rate(np.sin(2 * np.pi * rates[:, None] / 60 * times), 30)
    np.testing.assert_allclose(found, rates, atol=0.3)


def test_heart_rate_by_counting_overestimates_low_rates():
    """What P1 does, and reports: every notch is a beat."""
    wave = make_wave(50.0)
    assert (find_rate(wave, 30, "count") - 50).mean() > 20
    assert np.abs(find_rate(wave, 30, "fft") - 50).max() < 2


def test_heart_rate_keeps_to_its_band():
    times = np.arange(300) / 30
    wave = np.sin(2 * np.pi * 1.2 * times) + 3 * np.sin(2 * np.pi * 2.2 * times)
    assert find_rate(wave, 30) == pytest.approx(132, abs=1)
    assert find_rate(wave, 30, band_hz=(0.75, 1.8)) == pytest.approx(72, abs=1)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_heart_rate_of_a_flat_wave_is_not_a_number(method):
    waves = np.stack([np.zeros(300), np.sin(np.arange(300) / 4), np.ones(300)])
    rates = find_rate(waves, 30, method)
    assert np.isnan(rates[[0, 2]]).all()
    assert rates[1] == pytest.approx(60 * 30 / (8 * np.pi), abs=2)


def test_heart_rate_follows_in_windows():
    rate_hz = np.repeat([1.0, 1.5], 600)
    wave = np.sin(2 * np.pi * np.cumsum(rate_hz) / 30)
    rates = find_rates(wave, 30, window_s=10, step_s=5)
    np.testing.assert_allclose(rates[[0, 1, -2, -1]], [60, 60, 90, 90], atol=0.5)
    assert len(rates) == 7
    assert cut_windows(wave, 30, 10, 5).shape == (7, 300)
    # A wave shorter than a window is one window.
    assert find_rates(wave[:200], 30, 10, 5).shape == (1,)


def test_heart_rate_quality_falls_with_noise():
    good, poor, none = (signal_to_noise(make_wave(80, noise=noise), 30, 80).mean() for noise in (0.05, 0.5, 5))
    assert good > poor > none + 6
    assert none < 0
    assert signal_to_noise(make_wave(80), 30, np.full(8, 110)).mean() < 0
    assert np.isnan(signal_to_noise(np.zeros(300), 30, 80))


def test_heart_rate_quality_is_a_ratio_of_powers():
    """A tone of 10 times the power of another: 10 dB."""
    times = np.arange(3000) / 30
    wave = np.sqrt(10) * np.sin(2 * np.pi * 1.5 * times) + np.sin(2 * np.pi * 2.2 * times)
    assert signal_to_noise(wave, 30, 90) == pytest.approx(10, abs=0.5)
    # The overtone belongs to the pulse.
    overtone = np.sqrt(10) * np.sin(2 * np.pi * 1.1 * times) + np.sin(2 * np.pi * 2.2 * times)
    assert signal_to_noise(overtone, 30, 66) > 20


def test_heart_rate_variability_is_that_of_the_beats():
    intervals_s = 0.8 + 0.05 * np.sin(2 * np.pi * 0.3 * np.arange(110))
    beats_s = np.concatenate([[0], np.cumsum(intervals_s)])
    times = np.arange(0, 75, 1 / 30)
    phase = np.interp(times, beats_s, np.arange(len(beats_s)))
    found = find_variability(np.cos(2 * np.pi * phase), 30)
    seen = intervals_s[: int(found["n_beats"])]
    assert found["mean_nn_ms"] == pytest.approx(1e3 * seen.mean(), rel=0.01)
    assert found["sdnn_ms"] == pytest.approx(1e3 * seen.std(ddof=1), rel=0.1)
    assert found["rmssd_ms"] == pytest.approx(1e3 * np.sqrt(np.mean(np.diff(seen) ** 2)), rel=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_rate(np.zeros(300), 30, "guess"), "method 'guess' must be one of"),
        (lambda: find_rate(np.zeros(60), 30), "2.0 s are too short for a rate from 45 bpm on: 2.7 s"),
        (lambda: find_rate(np.full(300, np.inf), 30), "300 of 300 samples are not finite"),
        (lambda: find_rate(np.zeros(300), -1), "fs=-1 Hz must be above 0"),
        (lambda: cut_windows(np.zeros(300), 30, 10, 0), "must be at least one sample"),
        (lambda: find_variability(np.zeros(300), 30), "10.0 s are too short for heart-rate variability"),
    ],
)
def test_heart_rate_refuses_what_has_none(call, message):
    with pytest.raises(ValueError, match=message):
        call()


READINGS = {
    "fft": lambda steps: find_rate(PulseFilter()(steps, 30.0), 30.0),
    "hann": lambda steps: find_rate(PulseFilter()(steps, 30.0) * np.hanning(len(steps)), 30.0),
    "derivative": lambda steps: find_rate(steps, 30.0),
    "autocorrelation": lambda steps: find_rate(PulseFilter()(steps, 30.0), 30.0, "autocorrelation"),
    "peaks": lambda steps: find_rate(PulseFilter()(steps, 30.0), 30.0, "peaks"),
}


def test_heart_rate_by_fft_holds_where_there_is_noise():
    """docs/rppg.md shows these figures."""
    rng = np.random.default_rng(1)
    found = {}
    for noise in (0.5, 1.0, 2.0):
        errors = {name: [] for name in READINGS}
        for _ in range(60):
            hr_bpm, times_s = rng.uniform(50, 115), np.arange(301) / 30
            rate = simulate_rate(rng, times_s, hr_bpm)
            steps = np.diff(simulate_pulse(rng, times_s, rate))
            steps = steps / steps.std() + noise * rng.normal(size=300)
            for name, read in READINGS.items():
                errors[name].append(abs(float(read(steps)) - rate[1:].mean()))
        found |= {(name, noise): np.mean(values) for name, values in errors.items()}
    expected = {
        "fft": (0.22, 0.46),
        "hann": (0.28, 0.67),
        "derivative": (0.17, 1.52),
        "autocorrelation": (0.59, 5.78),
        "peaks": (0.55, 3.31),
    }
    for name, figures in expected.items():
        np.testing.assert_allclose([found[name, 1.0], found[name, 2.0]], figures, atol=0.05, err_msg=name)
