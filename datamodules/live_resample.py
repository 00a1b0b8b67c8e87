"""A stream at another sampling frequency, by the polyphase filter of SciPy, piece by piece."""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from datamodules.live_blocks import Block, BlockPlan, cut_blocks
from datamodules.live_gaps import Gap, Piece, mark_bad
from datamodules.rhythm_signal import FLAT_S

_HALF_LENGTH = 10  # of scipy.signal.resample_poly's filter, in periods of the lower frequency


def resample_pieces(
    pieces: Iterable[Piece | Gap],
    fs: float,
    to_fs: float,
    limits_mv: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> Iterator[Piece | Gap]:
    """Resample a stream.

    Parameters
    ----------
    pieces : iterable of Piece or Gap
        The stream.
    fs, to_fs : float
        Its sampling frequency in Hz and the wished one.
    limits_mv : tuple of two ndarray, optional
        See `datamodules.live_gaps.mark_bad`: flat and saturated stretches must be marked before they are resampled.

    Yields
    ------
    Piece or Gap
        Positions count samples of ``to_fs``.

    Raises
    ------
    ValueError
        If the frequencies have no ratio of small numbers.
    """
    ratio, plan = _plan(fs, to_fs)
    up, down = ratio.numerator, ratio.denominator
    shift = 0  # from the segment's positions at fs to those at to_fs
    for block in cut_blocks(pieces, plan):
        if isinstance(block, Gap):
            yield Gap(math.ceil(block.start * ratio), math.ceil(block.stop * ratio))
            continue
        if block.opens:
            segment, shift = block.start, math.ceil(block.start * ratio)
        yield _resample(block, fs, up, down, segment, shift, limits_mv)


def resampling_delay_s(fs: float, to_fs: float) -> float:
    """Return how long a sample is held back by `resample_pieces` at most, in seconds."""
    _, plan = _plan(fs, to_fs)
    return (plan.step + plan.ahead) / fs


def _plan(fs: float, to_fs: float) -> tuple[Fraction, BlockPlan]:
    ratio = Fraction(to_fs).limit_denominator(1000) / Fraction(fs).limit_denominator(1000)
    up, down = ratio.numerator, ratio.denominator
    if max(up, down) > 10_000:
        raise ValueError(f"from {fs!r} to {to_fs!r} Hz is a ratio of {up} to {down}: resample the signal beforehand")
    around = max(math.ceil(_HALF_LENGTH * max(up, down) / up) + 1, math.ceil(FLAT_S * fs))
    return ratio, BlockPlan(*(down * math.ceil(length / down) for length in (fs, around, around)))


def _resample(
    block: Block,
    fs: float,
    up: int,
    down: int,
    segment: int,
    shift: int,
    limits_mv: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
) -> Piece:
    from scipy.signal import resample_poly

    bad = mark_bad(block.signal_mv, block.bad, fs, limits_mv)
    signal = resample_poly(block.signal_mv, up, down, axis=1, padtype="line")
    # Blocks and what they see begin at multiples of `down` behind the start of their segment.
    offset = (block.seen_from - segment) * up // down
    first, stop = ((place - segment) * up // down - offset for place in (block.start, block.stop))
    stop = -(-(block.stop - segment) * up // down) - offset if block.closes else stop
    places = np.minimum(np.arange(first, stop) * down // up, len(bad) - 1)
    return Piece(
        shift + offset + first,
        np.ascontiguousarray(signal[:, first:stop], dtype=np.float32),
        bad[places] | bad[np.minimum(places + 1, len(bad) - 1)],
    )
