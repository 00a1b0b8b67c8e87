"""What paper P1's habits do to rates, on simulated waves and videos; docs/rppg.md shows these figures."""

from dataclasses import replace

import numpy as np
import pytest
from hydra.utils import instantiate

from composition.heart_rate import HeartRate
from composition.rate_windows import RateWindows
from datamodules.colour_pulse import colour_wave
from datamodules.faces import track_faces
from datamodules.heart_rate import find_rate
from datamodules.pulse import PulseFilter
from datamodules.stretches import Stretch
from tests.configs import compose_config
from tests.video_trees import draw
from tracking.statistics import point_metrics

FS, N_WINDOWS = 25.0, 6
TASK = HeartRate(PulseFilter(), "fft", window_s=10, parity_windows=1)


@pytest.fixture(scope="module")
def simulated():
    """200 persons of a minute each, 52 to 118 bpm: pulses with an overtone, their derivatives under white noise."""
    rng, rates_bpm = np.random.default_rng(0), np.linspace(52, 118, 200)
    n = round(10 * FS) * N_WINDOWS
    time_s = np.arange(n + 1) / FS
    stretches, derivatives = [], []
    for number, rate in enumerate(rates_bpm):
        phase = 2 * np.pi * rate / 60 * time_s + rng.uniform(0, 6)
        steps = np.diff(np.sin(phase) + 0.4 * np.sin(2 * phase + 1))
        derivatives.append((steps - steps.mean()) / steps.std() + rng.normal(0, 1, n))
        stretches.append(Stretch(f"v{number:03d}", f"p{number}", 0.0, ((number, 0),), np.full(n, rate)))
    length = n // N_WINDOWS
    cuts = [(at, slice(k * length, (k + 1) * length)) for at in range(len(stretches)) for k in range(N_WINDOWS)]
    spans = {stretch.record_id: [at] for at, stretch in enumerate(stretches)}
    return RateWindows(stretches, cuts, spans, rates_bpm, FS), derivatives


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (0.2, 0.2, 0.2, 0.2)),
        ({"method": "count"}, (11.2, 24.0, 4.8, 2.8)),
        ({"assumed_fs": 30.0}, (17.0, 12.9, 16.7, 20.8)),
    ],
)
def test_errors_of_p1s_habits(simulated, options, expected):
    windows, derivatives = simulated
    task = replace(TASK, **options)
    waves = [task.pulse(derivative, task.assumed_fs or FS) for derivative in derivatives]
    found = point_metrics(task.read_waves(windows, waves))
    names = ("hr_mae_bpm_window", *(f"hr_mae_bpm_{group}_window" for group in ("low", "middle", "high")))
    np.testing.assert_allclose([found[name] for name in names], expected, atol=0.3)


def measure_pos(faces, screen, seconds=10):
    """Mean absolute error of POS in bpm over eight persons, with crops of a stage of conf/datamodule/faces."""
    stage, errors = (
        instantiate(compose_config("datamodule=synthetic_ubfc", f"datamodule/faces={faces}").datamodule.faces),
        [],
    )
    for seed, hr_bpm in enumerate(np.linspace(54, 112, 8)):
        scene = {"face": 0.42, "nod": 0.006, "shading": 0.015, "screen": screen}
        _, _, rate, frames = draw(seconds, hr_bpm=hr_bpm, seed=seed, **scene)
        rgb = np.array([crop.image.mean(axis=(0, 1)) for crop in track_faces(frames, stage, 36)])
        errors.append(abs(float(find_rate(colour_wave(rgb, 30.0, "pos"), 30.0)) - rate.mean()))
    return np.mean(errors)


@pytest.mark.parametrize(
    ("faces", "screen", "expected"),
    [("cascade", 0.0, 0.3), ("whole_frame", 0.0, 0.4), ("cascade", 0.003, 0.4), ("whole_frame", 0.003, 22.4)],
)
def test_errors_without_the_faces_box(faces, screen, expected):
    np.testing.assert_allclose(measure_pos(faces, screen), expected, atol=0.3)
