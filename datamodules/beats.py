"""Beats of equal length: chosen, cut out from RR1/3 before to 2RR2/3 after the R peak, and resampled."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_BEFORE, N_AFTER = 100, 200
_SHARE_BEFORE, _SHARE_AFTER = 1 / 3, 2 / 3
_BLOCK = 512  # beats at once: what belongs to them stays in the cache of a core


@dataclass(frozen=True, eq=False, slots=True)
class ChosenBeats:
    """Which beats of a record are cut out, and what became of the others.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Rows of the R peaks; none is the first or the last.
    counts : dict of str to int
        Each beat once: ``edge``, ``unconfirmed``, ``unlabelled``, ``gap``, ``too_close``, ``bad_signal``, ``used``.
    """

    rows: NDArray[np.int64]
    counts: dict[str, int]


def choose_beats(
    rpeaks: NDArray[np.int64],
    fs: float,
    *,
    confirmed: NDArray[np.bool_],
    labelled: NDArray[np.bool_],
    bad: NDArray[np.bool_],
    min_rr_s: float,
    max_rr_s: float,
) -> ChosenBeats:
    """Choose the beats that can be cut out.

    Parameters
    ----------
    rpeaks : ndarray of int64, shape (n,)
        Sample positions, strictly increasing, all within the signal.
    fs : float
        Sampling frequency in Hz.
    confirmed, labelled : ndarray of bool, shape (n,)
        Whether a detection confirms the beat; whether it has a rhythm label.
    bad : ndarray of bool, shape (time,)
        Samples without a usable value; a beat with one of them in its window is rejected.
    min_rr_s, max_rr_s : float
        A beat next to a shorter interval is too close to another one; next to a longer one, at a pause or a gap.

    Returns
    -------
    ChosenBeats
        Rows of the chosen ones. The first and the last beat have one interval only: ``edge``.
    """
    n_beats = len(rpeaks)
    edge = np.zeros(n_beats, dtype=bool)
    edge[:1] = edge[-1:] = True
    reasons = {"edge": edge, "unconfirmed": ~confirmed, "unlabelled": ~labelled}
    for name in ("gap", "too_close", "bad_signal"):
        reasons[name] = np.zeros(n_beats, dtype=bool)
    if n_beats >= 3:
        rr_s = np.diff(rpeaks) / fs
        longest, shortest = np.maximum(rr_s[:-1], rr_s[1:]), np.minimum(rr_s[:-1], rr_s[1:])
        reasons["gap"][1:-1], reasons["too_close"][1:-1] = longest > max_rr_s, shortest < min_rr_s
        start, stop = _window_bounds(rpeaks)
        bad_at = np.flatnonzero(bad)
        n_before, n_within = np.searchsorted(bad_at, [start.astype(np.int64), np.ceil(stop).astype(np.int64) + 1])
        reasons["bad_signal"][1:-1] = n_within > n_before
    left, counts = np.ones(n_beats, dtype=bool), {}
    for name, applies in reasons.items():
        counts[name] = int((left & applies).sum())
        left &= ~applies
    return ChosenBeats(np.flatnonzero(left), {**counts, "used": int(left.sum())})


def cut_beats(
    signal_mv: NDArray[np.floating],
    rpeaks: NDArray[np.int64],
    rows: NDArray[np.int64],
    *,
    n_before: int = N_BEFORE,
    n_after: int = N_AFTER,
) -> NDArray[np.float32]:
    """Cut beats out and resample each to the same length, by linear interpolation.

    With RR1 and RR2 the intervals before and after R peak R1, the part from R1 - RR1/3 to R1 becomes ``n_before``
    samples, the part from R1 to R1 + 2RR2/3 ``n_after``: sample ``n_before`` is the R peak itself.

    Parameters
    ----------
    signal_mv : ndarray, shape (leads, time)
        Filtered signal.
    rpeaks : ndarray of int64, shape (n,)
        Sample positions, strictly increasing.
    rows : ndarray of int64, shape (m,)
        Rows of the beats to cut out, none of them the first or the last.
    n_before, n_after : int
        Samples before and from the R peak.

    Returns
    -------
    ndarray of float32, shape (m, leads, n_before + n_after)
        The beats in mV.

    Raises
    ------
    ValueError
        If a row is the first or last beat, or a window reaches beyond the signal.
    """
    blocks = list(iterate_beats(signal_mv, rpeaks, rows, n_before=n_before, n_after=n_after))
    if not blocks:
        return np.empty((0, len(signal_mv), n_before + n_after), dtype=np.float32)
    return np.concatenate(blocks)


def iterate_beats(
    signal_mv: NDArray[np.floating],
    rpeaks: NDArray[np.int64],
    rows: NDArray[np.int64],
    *,
    n_before: int = N_BEFORE,
    n_after: int = N_AFTER,
) -> Iterator[NDArray[np.float32]]:
    """Yield what `cut_beats` returns, a block at a time."""
    if len(rows) and (rows.min() < 1 or rows.max() > len(rpeaks) - 2):
        raise ValueError(f"rows {rows.min()} to {rows.max()} of {len(rpeaks)} beats, expected neither first nor last")
    if len(rpeaks) and (rpeaks[0] < 0 or rpeaks[-1] >= signal_mv.shape[1]):
        raise ValueError(
            f"R peaks reach from {rpeaks[0]} to {rpeaks[-1]}, expected within {signal_mv.shape[1]} samples"
        )
    signal = np.asarray(signal_mv, dtype=np.float32)
    slope = np.empty_like(signal)
    np.subtract(signal[:, 1:], signal[:, :-1], out=slope[:, :-1])
    slope[:, -1:] = 0
    halves = (
        (slice(0, n_before), *_tabulate(rpeaks[rows] - rpeaks[rows - 1], -n_before, n_before, _SHARE_BEFORE)),
        (slice(n_before, None), *_tabulate(rpeaks[rows + 1] - rpeaks[rows], 0, n_after, _SHARE_AFTER)),
    )
    for first in range(0, len(rows), _BLOCK):
        here = slice(first, first + _BLOCK)
        peaks = rpeaks[rows[here], None]
        beats = np.empty((len(peaks), len(signal), n_before + n_after), dtype=np.float32)
        for half, row, offsets, shares in halves:
            at = offsets.take(row[here], axis=0)
            at += peaks
            share = shares.take(row[here], axis=0)
            for lead in range(len(signal)):
                # All within the signal: "clip" only spares NumPy's check of each.
                rise = slope[lead].take(at, mode="clip")
                rise *= share
                np.add(signal[lead].take(at, mode="clip"), rise, out=beats[:, lead, half])
        yield beats


def _tabulate(
    rr: NDArray[np.int64], first: int, n_samples: int, part: float
) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float32]]:
    """Say once for each distinct RR interval in samples what lies ``first`` and more steps of it after an R peak.

    Returns the row of each interval, and by row: the sample before each step, and the step's share of the way to the
    next.
    """
    distinct, row = np.unique(rr, return_inverse=True)
    steps = np.arange(first, first + n_samples) * (part / n_samples)
    offsets = distinct[:, None] * steps
    whole = np.floor(offsets)
    return row, whole.astype(np.int64), (offsets - whole).astype(np.float32)


def _window_bounds(rpeaks: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Start and end of the windows of all beats but the first and last, in samples."""
    rr = np.diff(rpeaks)
    return rpeaks[1:-1] - rr[:-1] * _SHARE_BEFORE, rpeaks[1:-1] + rr[1:] * _SHARE_AFTER
