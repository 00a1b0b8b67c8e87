"""Simulated Holter recordings: sinus rhythm and atrial fibrillation in turns, hours in a second or two.

Beats are sums of Gaussian waves (after McSharry et al. 2003, 10.1109/TBME.2003.808805) laid at R peaks. Fibrillation
has irregular intervals, no P wave and fibrillatory waves of 4 to 9 Hz. Ectopic beats in sinus rhythm, noise and lost
electrodes keep either from being obvious.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_LEADS = 2
# Centre (s after the R peak), width (s) and height (mV) of P, Q, R, S and T in the first lead.
_WAVES = np.array(
    [
        (-0.16, 0.022, 0.12),
        (-0.03, 0.009, -0.10),
        (0.0, 0.011, 1.0),
        (0.03, 0.011, -0.22),
        (0.28, 0.045, 0.28),
    ]
)
_P, _T = 0, 4
_BEFORE_S, _AFTER_S = 0.28, 0.5  # what a beat's waves cover
_SHORTEST_RR_S, _LONGEST_RR_S = 0.34, 1.9
_N_SHAPES = 16  # T waves follow the RR interval in so many steps


@dataclass(frozen=True, eq=False, slots=True)
class Holter:
    """One simulated recording.

    Attributes
    ----------
    signal_mv : ndarray of float32, shape (2, time)
        Two leads in mV.
    rpeaks : ndarray of int64, shape (n,)
        True R peaks in samples.
    starts : ndarray of int64, shape (n_episodes,)
        First sample of each episode.
    fibrillation : ndarray of bool, shape (n_episodes,)
        Whether it is atrial fibrillation.
    """

    signal_mv: NDArray[np.float32]
    rpeaks: NDArray[np.int64]
    starts: NDArray[np.int64]
    fibrillation: NDArray[np.bool_]


def simulate_holter(rng: np.random.Generator, duration_s: float, fs: float, burden: float) -> Holter:
    """Simulate one person's recording.

    Parameters
    ----------
    rng : Generator
        Source of randomness.
    duration_s, fs : float
        Length in seconds and sampling frequency in Hz.
    burden : float
        Share of the time in atrial fibrillation, about.

    Returns
    -------
    Holter
    """
    n_samples = round(duration_s * fs)
    starts_s, fibrillation = _draw_episodes(rng, duration_s, burden)
    beats_s, in_fibrillation = _draw_beats(rng, starts_s, fibrillation, duration_s)
    rpeaks = np.rint(beats_s * fs).astype(np.int64)
    inside = (rpeaks > _BEFORE_S * fs) & (rpeaks < n_samples - _AFTER_S * fs - 1)
    rpeaks, in_fibrillation = rpeaks[inside], in_fibrillation[inside]
    signal = _draw_noise(rng, n_samples, fs)
    _add_beats(rng, signal, rpeaks, in_fibrillation, fs)
    edges = np.append(np.rint(starts_s * fs).astype(np.int64), n_samples)
    for first, stop, irregular in zip(edges[:-1], edges[1:], fibrillation, strict=True):
        if irregular:
            signal[:, first:stop] += _draw_fibrillatory_waves(rng, stop - first, fs)
    if rng.random() < 0.3:  # an electrode comes off for a while
        first = int(rng.integers(0, max(1, n_samples - round(4 * fs))))
        signal[:, first : first + round(4 * fs)] = 0
    return Holter(signal, rpeaks, edges[:-1], fibrillation)


def _draw_episodes(
    rng: np.random.Generator, duration_s: float, burden: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the start of each episode and whether it is fibrillation; sinus rhythm and fibrillation in turns."""
    if not 0 < burden < 1:
        return np.zeros(1), np.array([burden >= 1])
    n_turns = int(rng.integers(1, 2 + int(np.sqrt(duration_s / 600)) * 2))
    shares = rng.dirichlet(np.full(n_turns, 3.0), 2) * np.array([[1 - burden], [burden]])
    lengths = shares.T.ravel() * duration_s
    return np.concatenate([[0.0], np.cumsum(lengths)[:-1]]), np.arange(2 * n_turns) % 2 == 1


def _draw_beats(
    rng: np.random.Generator, starts_s: NDArray[np.float64], fibrillation: NDArray[np.bool_], duration_s: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the R peaks in seconds and whether each is in fibrillation."""
    sinus_s, fast_s = rng.uniform(0.65, 1.05), rng.uniform(0.5, 0.85)
    spread, ectopic = rng.uniform(0.1, 0.24), rng.choice([0.0, 0.02, 0.1])
    wobble = rng.uniform(0.01, 0.06)
    beats, kinds, now = [], [], 0.2
    for stop, irregular in zip(np.append(starts_s[1:], duration_s), fibrillation, strict=True):
        n_beats = int((stop - now) / _SHORTEST_RR_S) + 2
        if irregular:
            rr = fast_s * rng.lognormal(0, spread, n_beats)
        else:
            rr = sinus_s * (1 + wobble * np.sin(np.arange(n_beats) * 1.6) + rng.normal(0, 0.015, n_beats))
            early = np.flatnonzero(rng.random(n_beats - 1) < ectopic)
            rr[early] *= 0.65
            rr[early + 1] *= 1.3
        times = now + np.cumsum(np.clip(rr, _SHORTEST_RR_S, _LONGEST_RR_S))
        times = times[times < stop]
        beats.append(times)
        kinds.append(np.full(len(times), irregular))
        now = times[-1] if len(times) else now
    return np.concatenate(beats), np.concatenate(kinds)


def _add_beats(
    rng: np.random.Generator,
    signal: NDArray[np.float32],
    rpeaks: NDArray[np.int64],
    in_fibrillation: NDArray[np.bool_],
    fs: float,
) -> None:
    offsets = np.arange(-round(_BEFORE_S * fs), round(_AFTER_S * fs) + 1)
    rr_s = np.diff(rpeaks, append=rpeaks[-1:] + round(0.8 * fs)) / fs
    shapes = np.linspace(_SHORTEST_RR_S, _LONGEST_RR_S, _N_SHAPES)
    shape_of = np.searchsorted(shapes[1:-1], rr_s)
    loudness = (1 + 0.06 * np.sin(rpeaks / fs * 2 * np.pi * 0.25)).astype(np.float32)[:, None]
    centre = _WAVES[:, 0] * rng.uniform(0.9, 1.1, len(_WAVES))
    centre[2] = 0
    width = _WAVES[:, 1] * rng.uniform(0.85, 1.2, len(_WAVES))
    for lead in range(N_LEADS):
        height = _WAVES[:, 2] * rng.lognormal(0, 0.25, len(_WAVES)) * (1.0 if lead == 0 else 0.6)
        centres = np.repeat(centre[None], _N_SHAPES, axis=0)
        centres[:, _T] *= np.sqrt(np.minimum(shapes, 1.2))
        waves = height[:, None] * np.exp(-0.5 * ((offsets / fs - centres[..., None]) / width[:, None]) ** 2)
        atrial = waves[:, _P].astype(np.float32)
        rest = (waves.sum(axis=1) - waves[:, _P]).astype(np.float32)
        # Of every third beat the windows do not overlap, so they can be added all at once.
        for first in range(3):
            taken = slice(first, None, 3)
            added = rest[shape_of[taken]]
            added += atrial[shape_of[taken]] * ~in_fibrillation[taken, None]
            signal[lead][rpeaks[taken, None] + offsets] += added * loudness[taken]


def _draw_fibrillatory_waves(rng: np.random.Generator, n_samples: int, fs: float) -> NDArray[np.float32]:
    time_s = np.arange(n_samples, dtype=np.float32) / np.float32(fs)
    slow = np.sin(2 * np.pi * rng.uniform(0.05, 0.2) * time_s + np.float32(rng.uniform(0, 6)))
    phase = 2 * np.pi * rng.uniform(4.5, 8) * time_s + np.float32(2) * slow
    wave = (np.sin(phase) + 0.35 * np.sin(2 * phase)) * (1 + 0.4 * slow)
    return (rng.uniform(0.01, 0.07, (N_LEADS, 1)).astype(np.float32) * wave).astype(np.float32)


def _draw_noise(rng: np.random.Generator, n_samples: int, fs: float) -> NDArray[np.float32]:
    """Baseline wander and muscle noise, with minutes in which the noise is stronger."""
    noise = rng.standard_normal((N_LEADS, n_samples), dtype=np.float32)
    minutes = rng.lognormal(np.log(0.015), 0.6, -(-n_samples // round(60 * fs))).astype(np.float32)
    noise *= np.repeat(minutes, round(60 * fs))[:n_samples]
    time_s = np.arange(n_samples, dtype=np.float32) / np.float32(fs)
    for frequency in rng.uniform(0.08, 0.4, 2):
        noise += np.float32(rng.uniform(0.02, 0.12)) * np.sin(np.float32(2 * np.pi * frequency) * time_s)
    return noise
