"""Simulated 12-lead ECGs: ECGSYN waves, each carried by a vector of the heart.

Every wave of a beat (P, Q, R, S, a late QRS wave, the ST segment, T) is one source of the ECGSYN model
(McSharry et al. 2003, doi:10.1109/TBME.2003.808805) with a vector in space: x to the left, y to the feet, z
to the back. Dower's matrix takes the vectors to the leads. Unlike in ECGSYN, RR intervals are drawn per
record, so that a small bank of sources serves every patient.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEAD_NAMES = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
SOURCE_FS = 500.0
"""Sampling rate of the source bank in Hz."""

WAVES = ("P", "Q", "R", "S", "late", "ST", "T")
_CENTRE_S = np.array([-0.16, -0.03, 0.0, 0.03, 0.052, 0.13, 0.27])
_ECGSYN_WIDTH = np.array([0.15, 0.08, 0.1, 0.09, 0.1, 0.3, 0.4])
_VECTOR_MV = np.array(
    [
        [0.07, 0.10, -0.02],
        [-0.12, -0.05, -0.18],
        [1.00, 0.75, 0.35],
        [-0.20, -0.20, 0.45],
        [0.00, 0.00, 0.00],
        [0.01, 0.01, -0.02],
        [0.28, 0.22, -0.15],
    ]
)
# Leads I, II, V1..V6 from x, y, z: Dower et al. 1980, doi:10.1002/clc.1980.3.2.87.
_DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
# The same leads from the electrodes RA, LA, LL, V1..V6: noise that arises at the skin keeps Einthoven's law.
_ELECTRODES = np.zeros((8, 9))
_ELECTRODES[0, :2] = -1, 1
_ELECTRODES[1, [0, 2]] = -1, 1
_ELECTRODES[2:, :3] = -1 / 3
_ELECTRODES[2:, 3:] = np.eye(6)


@dataclass(frozen=True)
class Heart:
    """The beat of one patient.

    Attributes
    ----------
    vector_mv : ndarray of float64, shape (waves, 3)
        Vector of each wave in mV: left, down, back.
    centre_s, stretch : ndarray of float64, shape (waves,)
        Time after the R peak in seconds at 60 beats a minute; duration relative to the source.
    sources : ndarray of float64, shape (waves, time)
        The patient's ECGSYN source of each wave, peak 1 in the middle, at `SOURCE_FS`.
    heart_rate : float
        Beats a minute at rest.
    """

    vector_mv: Array
    centre_s: Array
    stretch: Array
    sources: Array
    heart_rate: float


def simulate_sources(n_shapes: int = 3) -> Array:
    """Run ECGSYN once per wave and shape.

    Parameters
    ----------
    n_shapes : int, default 3
        Widths of each wave, from narrow to broad.

    Returns
    -------
    ndarray of float64, shape (n_shapes, waves, time)
        One beat per source at `SOURCE_FS`, peak 1 in the middle, 0 at both ends.
    """
    from neurokit2.ecg import ecg_simulate  # seconds to import, and not needed once the files are written

    half = int(0.45 * SOURCE_FS)
    bank = np.empty((n_shapes, len(WAVES), 2 * half + 1))
    for shape, scale in enumerate(np.geomspace(0.85, 1.2, n_shapes)):
        for wave, width in enumerate(_ECGSYN_WIDTH * scale):
            signal = ecg_simulate(
                duration=4,
                sampling_rate=int(SOURCE_FS),
                heart_rate=60,
                heart_rate_std=0,
                noise=0,
                method="ecgsyn",
                random_state=0,
                ai=(0, 0, 30, 0, 0),
                bi=(1, 1, width, 1, 1),
            )
            # The model starts off its limit cycle: the third beat is clear of it.
            peak = int(2 * SOURCE_FS - half / 2 + np.argmax(signal[int(2 * SOURCE_FS - half / 2) :][:half]))
            beat = signal[peak - half : peak + half + 1]
            beat = beat - np.linspace(beat[0], beat[-1], beat.size)
            bank[shape, wave] = beat / beat[half]
    return bank


def draw_heart(rng: np.random.Generator, bank: Array) -> Heart:
    """Draw a healthy heart: anatomy, axis, voltages and timing vary between patients.

    Parameters
    ----------
    rng : Generator
        Source of randomness.
    bank : ndarray of float64, shape (shapes, waves, time)
        From `simulate_sources`.

    Returns
    -------
    Heart
    """
    n_waves = len(WAVES)
    vector = _VECTOR_MV * rng.lognormal(0, 0.15, (n_waves, 1))
    vector = vector + rng.normal(0, 0.08, vector.shape) * np.linalg.norm(_VECTOR_MV, axis=1, keepdims=True)
    vector[WAVES.index("late")] += rng.normal(0, 0.04, 3)
    vector = rng.lognormal(0, 0.13) * vector @ _draw_rotation(rng, 0.15)
    centre = _CENTRE_S + rng.normal(0, (0.018, 0.003, 0, 0.003, 0.004, 0.01, 0.015))
    return Heart(
        vector_mv=vector,
        centre_s=centre,
        stretch=rng.lognormal(0, 0.1, n_waves),
        sources=bank[rng.integers(len(bank), size=n_waves), np.arange(n_waves)],
        heart_rate=float(np.clip(rng.normal(72, 12), 48, 115)),
    )


def record_heart(
    rng: np.random.Generator, heart: Heart, fs: float, duration_s: float, fibrillation: bool = False
) -> NDArray[np.int16]:
    """Record one 12-lead ECG of a heart, with breathing, baseline wander, mains and muscle noise.

    Parameters
    ----------
    rng : Generator
        Source of randomness.
    heart : Heart
        Who is recorded.
    fs, duration_s : float
        Sampling rate in Hz and length in seconds.
    fibrillation : bool, default False
        Atrial fibrillation: no P wave, irregular RR intervals.

    Returns
    -------
    ndarray of int16, shape (time, 12)
        Microvolts in the order of `LEAD_NAMES`. III = II - I holds exactly, the augmented leads within 1.
    """
    time_s = np.arange(round(duration_s * fs)) / fs
    breath_hz, phase = rng.uniform(0.2, 0.35), rng.uniform(0, 2 * np.pi)
    rr_s = 60 / (heart.heart_rate * rng.lognormal(0, 0.07))
    spread = rng.normal(0, 0.18 if fibrillation else 0.02, int(duration_s / rr_s * 2) + 4)
    beats_s = rng.uniform(-1, 0) * rr_s - rr_s + np.cumsum(rr_s * np.clip(1 + spread, 0.55, 1.6))
    beats_s += 0.015 * np.sin(2 * np.pi * breath_hz * beats_s + phase)
    # Only repolarisation follows the heart rate, by Bazett's square root.
    centre = np.where(heart.centre_s > 0.1, heart.centre_s * np.sqrt(min(rr_s, 1.1)), heart.centre_s)
    vector = heart.vector_mv @ _draw_rotation(rng, 0.05) * rng.lognormal(0, 0.05)
    if fibrillation:
        vector[WAVES.index("P")] = 0
    grid_s = (np.arange(heart.sources.shape[1]) - heart.sources.shape[1] // 2) / SOURCE_FS
    loudness = 1 + 0.05 * np.sin(2 * np.pi * breath_hz * beats_s)
    sources = [
        loudness @ np.interp((time_s - beats_s[:, None] - at) / width, grid_s, source)
        for at, width, source in zip(centre, heart.stretch, heart.sources, strict=True)
    ]
    leads_mv = _DOWER @ vector.T @ np.stack(sources) + _ELECTRODES @ _draw_noise(rng, time_s, fs)
    return _to_twelve(np.rint(leads_mv * 1000).astype(np.int64))


def _draw_rotation(rng: np.random.Generator, angle: float) -> Array:
    """Rotation by a random small angle (radians, per axis) about a random axis: Cayley's form."""
    x, y, z = rng.normal(0, angle / 2, 3)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.linalg.solve(np.eye(3) - skew, np.eye(3) + skew)


def _draw_noise(rng: np.random.Generator, time_s: Array, fs: float) -> Array:
    """Skin noise of the nine electrodes in mV, shape (9, time)."""
    n_electrodes = _ELECTRODES.shape[1]
    wander_hz = rng.uniform(0.05, 0.45, (n_electrodes, 3, 1))
    wander = np.sin(2 * np.pi * (wander_hz * time_s + rng.uniform(0, 1, wander_hz.shape)))
    wander_mv = rng.lognormal(np.log(0.03), 0.6, (n_electrodes, 3, 1)) * wander
    mains = np.sin(2 * np.pi * (50 * time_s + rng.uniform(0, 1)))
    mains_mv = rng.lognormal(np.log(0.004), 0.8, (n_electrodes, 1)) * mains
    white = rng.normal(0, 1, (n_electrodes, time_s.size + 1))
    muscle_mv = rng.lognormal(np.log(0.012 * np.sqrt(fs / 100)), 0.5, (n_electrodes, 1)) * np.diff(white)
    return wander_mv.sum(axis=1) + mains_mv + muscle_mv


def _to_twelve(eight: NDArray[np.int64]) -> NDArray[np.int16]:
    """Complete I, II, V1..V6 (8, time) by the derived limb leads: (time, 12)."""
    first, second = eight[:2]
    derived = (second - first, -(first + second) // 2, first - second // 2, second - first // 2)
    twelve = np.concatenate([np.stack([first, second, *derived]), eight[2:]])
    return np.clip(twelve, -32767, 32767).astype("<i2").T
