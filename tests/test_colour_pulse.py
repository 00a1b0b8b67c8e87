"""Pulse waves from mean colours: traces of known rate, with motion that hides it."""

import numpy as np
import pytest

from datamodules.colour_pulse import METHODS, colour_wave, predict_mean_rate
from datamodules.heart_rate import find_rate

# How much more blood changes red, green and blue of skin, relative to each (de Haan & van Leest 2014).
BLOOD = np.array([0.33, 0.77, 0.53])
SKIN = np.array([170.0, 120.0, 95.0])


def make_colours(rate_bpm, fs=30.0, seconds=12.0, pulse=0.01, light=0.0, noise=0.0005):
    """Draw skin under light that flickers alike in all colours; blood makes it darker."""
    random, times = np.random.default_rng(int(rate_bpm)), np.arange(round(seconds * fs)) / fs
    beat = np.sin(2 * np.pi * rate_bpm / 60 * times)
    flicker = light * np.sin(2 * np.pi * 1.9 * times + 1)
    relative = 1 - pulse * BLOOD * beat[:, None] + flicker[:, None]
    return SKIN * (relative + noise * random.standard_normal((len(times), 3))), beat


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("fs", [17.0, 30.0, 60.0])
@pytest.mark.parametrize("rate_bpm", [52.0, 75.0, 128.0])
def test_colour_pulse_finds_the_rate_and_the_sign(method, fs, rate_bpm):
    rgb, beat = make_colours(rate_bpm, fs)
    wave = colour_wave(rgb, fs, method)
    assert find_rate(wave, fs) == pytest.approx(rate_bpm, abs=1.0)
    middle = slice(len(wave) // 4, -len(wave) // 4)
    assert np.corrcoef(wave[middle], beat[middle])[0, 1] > 0.9


@pytest.mark.parametrize("method", ["chrom", "pos"])
def test_colour_pulse_sees_through_a_light_that_flickers(method):
    rgb, _ = make_colours(66.0, light=0.03)
    assert find_rate(colour_wave(rgb, 30, method), 30) == pytest.approx(66.0, abs=1.0)
    # The light is all that green sees.
    assert find_rate(colour_wave(rgb, 30, "green"), 30) == pytest.approx(114.0, abs=1.0)


def test_colour_pulse_of_many_traces_is_that_of_each():
    traces = np.stack([make_colours(rate)[0] for rate in (50, 60, 70)])
    for method in METHODS:
        together = colour_wave(traces, 30, method)
        np.testing.assert_allclose(together[1], colour_wave(traces[1], 30, method), atol=1e-12)


def test_colour_pulse_pos_equals_its_windows_one_by_one():
    rgb, _ = make_colours(60.0, seconds=3.0)
    length, total = 48, np.zeros(90)
    for start in range(90 - length + 1):
        window = rgb[start : start + length]
        window = window / window.mean(axis=0)
        first, second = window @ [0, 1, -1], window @ [-2, 1, 1]
        wave = first + first.std() / second.std() * second
        total[start : start + length] += wave - wave.mean()
    np.testing.assert_allclose(METHODS["pos"](rgb, 30), -total, atol=1e-9)


def test_colour_pulse_mean_rate_is_that_of_training():
    np.testing.assert_array_equal(predict_mean_rate([60, 80, 100], 2), [80, 80])


@pytest.mark.parametrize(
    ("rgb", "options", "message"),
    [
        (np.ones((90, 3)), {"method": "ica"}, r"method 'ica' must be one of \['chrom', 'green', 'pos'\]"),
        (np.ones((90, 4)), {}, r"rgb of shape \(90, 4\), expected"),
        (np.ones((40, 3)), {}, "1.33 s of colour are too short"),
        (np.full((90, 3), np.nan), {}, "270 of 270 samples are not finite"),
        (np.zeros((90, 3)), {}, "mean of 0 or less"),
    ],
)
def test_colour_pulse_refuses_what_is_no_trace(rgb, options, message):
    with pytest.raises(ValueError, match=message):
        colour_wave(rgb, 30, **options)
