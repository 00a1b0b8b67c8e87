"""Simulated face videos: valid, repeatable, and with the pulse that their ground truth names."""

import hashlib

import numpy as np
import pytest

from datamodules.colour_pulse import colour_wave
from datamodules.heart_rate import find_rate
from datamodules.origin import find_kind
from datamodules.simulated_face import simulate_pulse, simulate_rate
from datamodules.synthetic_video import list_synthetic_ubfc, list_synthetic_vipl, write_synthetic_ubfc
from tests.video_trees import draw


def green_peak_bpm(frames, fps):
    """Rate of the largest peak of the mean green of the skin."""
    green = np.array([frame[50:80, 65:95, 1].mean() for frame in frames])
    spectrum = np.abs(np.fft.rfft((green - green.mean()) * np.hanning(len(green)), 1 << 14))
    rates = 60 * np.fft.rfftfreq(1 << 14, 1 / fps)
    inside = (rates > 45) & (rates < 150)
    return rates[inside][spectrum[inside].argmax()]


def test_shading_fools_the_green_channel_and_not_the_colours():
    errors = {}
    for shading in (0.0, 0.015):
        for seed, hr_bpm in enumerate(np.linspace(56, 110, 4)):
            _, _, rate, frames = draw(10, hr_bpm=hr_bpm, seed=seed, shading=shading, nod=shading / 2.5)
            rgb = np.array([frame[35:95, 55:105].mean(axis=(0, 1)) for frame in frames])
            for method in ("green", "pos"):
                found = float(find_rate(colour_wave(rgb, 30.0, method), 30.0))
                errors.setdefault((method, shading), []).append(abs(found - rate.mean()))
    means = {key: np.mean(values) for key, values in errors.items()}
    assert max(means["green", 0.0], means["pos", 0.0], means["pos", 0.015]) < 1.5, means
    assert means["green", 0.015] > 5, means


@pytest.mark.parametrize("hr_bpm", [58, 84, 110])
def test_the_skin_has_the_pulse_of_the_ground_truth(hr_bpm):
    _, _, rate, frames = draw(8, hr_bpm=hr_bpm)
    assert green_peak_bpm(frames, 30) == pytest.approx(rate.mean(), abs=3)


def test_without_a_pulse_there_is_no_such_peak():
    _, bvp, _, frames = draw(8, hr_bpm=84, pulse=0.0)
    green = np.array([frame[50:80, 65:95, 1].mean() for frame in frames])
    assert abs(np.corrcoef(np.diff(green), np.diff(bvp))[0, 1]) < 0.3


def test_the_pulse_is_strongest_in_green():
    with_pulse, without = (list(draw(2, pulse=pulse)[3]) for pulse in (0.05, 0.0))
    difference = np.array(
        [np.subtract(a, b, dtype=float)[50:80, 65:95] for a, b in zip(with_pulse, without, strict=True)]
    )
    skin = np.array(without)[:, 50:80, 65:95].mean(axis=(0, 1, 2))
    red, green, blue = difference.mean(axis=(1, 2)).std(axis=0) / skin
    assert green > blue > red > 0


def test_the_rate_wanders_around_its_mean():
    times_s = np.arange(1800) / 30
    rate = simulate_rate(np.random.default_rng(0), times_s, 70)
    assert rate.mean() == pytest.approx(70, abs=1)
    assert 0.5 < rate.std() < 3
    wave = simulate_pulse(np.random.default_rng(0), times_s, rate)
    beats = np.flatnonzero((wave[1:-1] > wave[:-2]) & (wave[1:-1] >= wave[2:]) & (wave[1:-1] > 0.7))
    assert len(beats) == pytest.approx(70, abs=2)


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    def digest(place):
        root = write_synthetic_ubfc(place, n_subjects=1, duration_s=2, workers=1)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        assert find_kind(root) == "synthetic"
        return [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]

    first = digest(tmp_path / "a")
    assert first == digest(tmp_path / "b")
    assert [name for name, _ in first] == ["ground_truth.txt", "vid.avi", "synthetic.json"]


def test_every_group_of_the_paper_has_persons(tmp_path):
    listing = list_synthetic_ubfc(tmp_path, n_subjects=5, duration_s=2)
    assert listing.kind == "synthetic"
    rates = [entry.read().mean_hr_bpm for entry in listing.entries]
    assert set(np.digitize(rates, [77, 90])) == {0, 1, 2}
    assert min(rates) < 60
    assert max(rates) > 105


def test_impossible_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="n_subjects=0"):
        list_synthetic_ubfc(tmp_path, n_subjects=0)
    with pytest.raises(ValueError, match=r"sources has \[7\]"):
        list_synthetic_vipl(tmp_path, sources=(1, 7))
