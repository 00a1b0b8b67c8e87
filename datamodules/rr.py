"""Windows of RR intervals, for models that need no waveform."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.groups import encode_ids

RR_ROW = "RR"
"""Name of the only row of a window of RR intervals."""


@dataclass(frozen=True, eq=False, slots=True)
class RrWindows:
    """Windows of one record.

    Attributes
    ----------
    rr_s : ndarray of float32, shape (n, length)
        RR intervals in seconds.
    positive : ndarray of bool, shape (n,)
        Whether more than half of the intervals are positive.
    times_s : ndarray of float64, shape (n,)
        First beat of each window, in seconds from the start of the record.
    overlapping : ndarray of bool, shape (n,)
        Whether the window shares intervals with the non-overlapping ones before it: for training only.
    counts : dict of str to int
        ``intervals``, and of them ``gap`` (too long), ``unlabelled`` and ``left_over`` (in no window).
    """

    rr_s: NDArray[np.float32]
    positive: NDArray[np.bool_]
    times_s: NDArray[np.float64]
    overlapping: NDArray[np.bool_]
    counts: dict[str, int]


def cut_rr_windows(
    beats_s: NDArray[np.float64],
    positive: NDArray[np.bool_],
    labelled: NDArray[np.bool_],
    *,
    length: int,
    stride: int,
    max_rr_s: float,
) -> RrWindows:
    """Cut a record into windows of RR intervals.

    An interval has the rhythm of the beat that ends it. Windows do not reach across an interval that is too long
    (a pause, or beats that were not annotated) or has no rhythm label; behind it they start anew. Windows of mixed
    rhythm are kept.

    Parameters
    ----------
    beats_s : ndarray of float64, shape (n,)
        Beats in seconds, strictly increasing.
    positive, labelled : ndarray of bool, shape (n,)
        Whether the rhythm at each beat is the one looked for; whether there is a label.
    length : int
        Intervals per window.
    stride : int
        Intervals from one window to the next; ``length`` for windows that do not overlap, a divisor of it for
        windows that do.
    max_rr_s : float
        Longest interval in seconds.

    Returns
    -------
    RrWindows
        The windows in order. Every ``length`` / ``stride``-th is not overlapping.

    Raises
    ------
    ValueError
        If length or stride is out of range.
    """
    if length < 1 or stride < 1 or length % stride:
        raise ValueError(
            f"datamodule.source.stride is {stride!r}, expected a divisor of the length {length!r}"
            f" (datamodule.n_samples), both at least 1"
        )
    rr_s = np.diff(beats_s)
    gap, unlabelled = rr_s > max_rr_s, ~labelled[1:] if len(rr_s) else np.zeros(0, dtype=bool)
    starts, phases = _window_starts(~(gap | unlabelled), length, stride)
    inside = starts[:, None] + np.arange(length)
    covered = np.zeros(len(rr_s), dtype=bool)
    covered[inside] = True
    return RrWindows(
        rr_s=rr_s[inside].astype(np.float32),
        positive=positive[1:][inside].sum(axis=1) * 2 > length,
        times_s=beats_s[starts],
        overlapping=phases != 0,
        counts={
            "intervals": len(rr_s),
            "gap": int(gap.sum()),
            "unlabelled": int((unlabelled & ~gap).sum()),
            "left_over": int((~covered & ~gap & ~unlabelled).sum()),
        },
    )


def _window_starts(usable: NDArray[np.bool_], length: int, stride: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first interval of each window, and its distance to the last non-overlapping one before it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], usable, [False]])))
    starts, phases = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        offsets = np.arange(0, stop - first - length + 1, stride)
        starts.append(first + offsets)
        phases.append(offsets % length)
    return np.concatenate(starts), np.concatenate(phases)


def rr_around(record_ids: NDArray[np.str_], times_s: NDArray[np.float64], n_intervals: int) -> NDArray[np.float32]:
    """Give each beat the RR intervals around it.

    Parameters
    ----------
    record_ids : ndarray of str, shape (n,)
        Record of each beat; beats of one record lie together.
    times_s : ndarray of float64, shape (n,)
        R peaks in seconds, increasing within a record.
    n_intervals : int
        Intervals: half of them end at the beat or before it.

    Returns
    -------
    ndarray of float32, shape (n, n_intervals)
        Intervals in seconds; NaN beyond the ends of the record.
    """
    rr_s = np.full(len(times_s), np.nan, dtype=np.float32)  # of each beat: the interval that ends there
    rr_s[1:] = np.diff(times_s)
    _, records = encode_ids(record_ids)
    first = np.ones(len(records), dtype=bool)
    first[1:] = records[1:] != records[:-1]
    rr_s[first] = np.nan
    before = n_intervals // 2
    padded = np.concatenate([np.full(before, np.nan), rr_s, np.full(n_intervals - before, np.nan)])
    around = np.lib.stride_tricks.sliding_window_view(padded, n_intervals)[1 : len(rr_s) + 1].astype(np.float32)
    owners = np.concatenate([np.full(before, -1), records, np.full(n_intervals - before, -1)])
    owners = np.lib.stride_tricks.sliding_window_view(owners, n_intervals)[1 : len(rr_s) + 1]
    around[owners != records[:, None]] = np.nan
    return around
