"""A stream without holes: missing samples bridged where they are few, the stream split where they are many.

Everything that follows works on pieces of signal that lie one after the other. A gap ends a segment; behind it every
filter and detector starts anew.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.rhythm_signal import CLIPPED_S, FLAT_S, find_runs


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """Contiguous samples of a segment.

    Attributes
    ----------
    start : int
        Position of the first sample since the stream began.
    signal_mv : ndarray of float32, shape (leads, time)
        Signal in mV without NaN.
    bad : ndarray of bool, shape (time,)
        Samples without a usable value in any of the leads, as far as known: those that were bridged.
    """

    start: int
    signal_mv: NDArray[np.float32]
    bad: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Gap:
    """Missing samples from ``start`` up to ``stop`` that end a segment; one gap may come in several parts."""

    start: int
    stop: int


def split_at_gaps(chunks: Iterable[NDArray[np.float32]], bridge: int) -> Iterator[Piece | Gap]:
    """Bridge short runs of missing samples by a straight line, and end the segment at longer ones.

    Parameters
    ----------
    chunks : iterable of ndarray of float32, shape (leads, n)
        The stream as it arrives; a sample is missing where any lead is not finite.
    bridge : int
        Longest run, in samples, that is bridged.

    Yields
    ------
    Piece or Gap
        In the order of time. Which samples are bridged does not depend on how the stream is cut into chunks.
    """
    position, absent = 0, 0  # samples seen; how many of the last ones are missing and not yet accounted for
    last: NDArray[np.float32] | None = None  # values of the segment's last sample
    for chunk in chunks:
        usable: NDArray[np.bool_] = np.asarray(np.isfinite(chunk).all(axis=0))
        edges = np.flatnonzero(np.diff(usable, prepend=~usable[:1], append=~usable[-1:]))
        for first, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            start = position + first
            if not usable[first]:
                absent += stop - first
                if absent > bridge or last is None:
                    yield Gap(position + stop - absent, position + stop)
                    absent, last = 0, None
                continue
            signal = np.ascontiguousarray(chunk[:, first:stop], dtype=np.float32)
            if absent and last is not None:
                yield Piece(start - absent, draw_bridge(last, signal[:, 0], absent), np.ones(absent, dtype=bool))
            absent, last = 0, signal[:, -1].copy()
            yield Piece(start, signal, np.zeros(stop - first, dtype=bool))
        position += len(usable)
    if absent:
        yield Gap(position - absent, position)


def draw_bridge(before: NDArray[np.float32], after: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Draw a straight line between two samples, in each lead.

    Parameters
    ----------
    before, after : ndarray of float32, shape (leads,)
        The samples on both sides.
    length : int
        Samples between them.

    Returns
    -------
    ndarray of float32, shape (leads, length)
        The samples between them.
    """
    share = np.arange(1, length + 1) / (length + 1)
    return (before[:, None] + share * (after - before)[:, None]).astype(np.float32)


def mark_bad(
    signal_mv: NDArray[np.float32],
    bad: NDArray[np.bool_],
    fs: float,
    limits_mv: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> NDArray[np.bool_]:
    """Mark flat and saturated stretches too, by the rules of `datamodules.rhythm_signal`.

    Parameters
    ----------
    signal_mv : ndarray of float32, shape (leads, time)
        Signal as it was recorded, before any filter. Runs that touch its ends are seen in part only.
    bad : ndarray of bool, shape (time,)
        What is marked already; left as it is.
    fs : float
        Sampling frequency in Hz.
    limits_mv : tuple of two ndarray of float32, shape (leads,), optional
        Lowest and highest value that the recorder can write, per lead; without them nothing counts as saturated.

    Returns
    -------
    ndarray of bool, shape (time,)
        All marks together.
    """
    marked = bad.copy()
    for row, lead in enumerate(signal_mv):
        still = np.concatenate([[False], lead[1:] == lead[:-1]])
        if still.any():
            flat = find_runs(still, max(1, round(FLAT_S * fs) - 1))
            flat[:-1] |= flat[1:]
            marked |= flat
        if limits_mv is not None:
            at_limit = (lead <= limits_mv[0][row]) | (lead >= limits_mv[1][row])
            if at_limit.any():
                marked |= find_runs(at_limit, max(2, round(CLIPPED_S * fs)))
    return marked
