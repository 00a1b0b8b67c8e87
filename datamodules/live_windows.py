"""Windows of a stream other than beats: stretches of signal of one length, and RR intervals."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from datamodules.live_beats import FoundPeaks, LiveWindows
from datamodules.live_blocks import Block, BlockPlan
from datamodules.live_gaps import Gap

_NO_PEAKS = np.empty(0, dtype=np.int64)


def plan_stretches(n_samples: int, stride: int) -> BlockPlan:
    """Cut a stream so that each block sees one window.

    Parameters
    ----------
    n_samples : int
        Samples of a window.
    stride : int
        Samples from one window to the next.

    Returns
    -------
    BlockPlan

    Raises
    ------
    ValueError
        If the stride is not between 1 and the window.
    """
    if not 1 <= stride <= n_samples:
        raise ValueError(f"stride is {stride!r} samples, expected 1 to {n_samples!r}, the length of a window")
    return BlockPlan(stride, 0, n_samples - stride)


def cut_stretches(blocks: Iterable[Block | Gap], n_samples: int) -> Iterator[LiveWindows | Gap]:
    """Take the window that each block sees.

    Parameters
    ----------
    blocks : iterable of Block or Gap
        The stream, cut by `plan_stretches`.
    n_samples : int
        Samples of a window.

    Yields
    ------
    LiveWindows or Gap
        Not filtered. A window with missing samples that were bridged counts as ``bad_signal``, what is left of a
        segment as ``left_over``. Flat leads are kept, as `datamodules.ptbxl` keeps them.
    """
    for block in blocks:
        if isinstance(block, Gap):
            yield block
            continue
        whole = block.seen_to - block.start == n_samples
        usable = whole and not block.bad.any()
        starts = np.array([block.start] if usable else [], dtype=np.int64)
        yield LiveWindows(
            starts=starts,
            ends=starts + n_samples,
            signal_mv=block.signal_mv[None, :, :] if usable else np.empty((0, len(block.signal_mv), n_samples), "f4"),
            known_at=block.seen_to,
            rpeaks=_NO_PEAKS,
            counts={} if usable else {"bad_signal" if whole else "left_over": 1},
            opens=block.opens,
        )


def cut_live_rr(
    found: Iterable[FoundPeaks | Gap], fs: float, length: int, stride: int, max_rr_s: float
) -> Iterator[LiveWindows | Gap]:
    """Cut windows of RR intervals, as `datamodules.rr.cut_rr_windows` does.

    Parameters
    ----------
    found : iterable of FoundPeaks or Gap
        See `datamodules.live_beats.find_rpeaks`.
    fs : float
        Sampling frequency of the stream in Hz.
    length, stride : int
        Intervals of a window, and from one window to the next.
    max_rr_s : float
        Windows do not reach across a longer interval, in seconds.

    Yields
    ------
    LiveWindows or Gap
        One row of intervals in seconds per window. Intervals across bad samples count as ``bad_signal``, too long ones
        as ``gap``; behind either, windows start anew, and intervals that are in no window count as ``left_over``.

    Raises
    ------
    ValueError
        If the stride is not between 1 and the length.
    """
    if not 1 <= stride <= length:
        raise ValueError(f"stride is {stride!r} intervals, expected 1 to {length!r}, the length of a window")
    peaks: list[int] = []  # beats of the intervals that are still needed
    covered, bad_since, last = 0, False, -1  # how many intervals of these are in a window already
    for item in found:
        if isinstance(item, Gap):
            yield item
            continue
        block, counts = item.block, Counter[str]()
        if block.opens:
            last = -1
        starts, ends, windows, seen = [], [], [], block.start
        for peak in item.rpeaks.tolist():
            between = slice(seen - block.start, max(0, peak + 1 - block.start))  # one may lie before the block
            bad_since |= bool(item.bad[between].any())
            seen = max(seen, peak + 1)
            reason = "bad_signal" if bad_since else "gap" if (peak - last) / fs > max_rr_s else ""
            if last < 0 or reason:
                counts[reason] += last >= 0
                counts["left_over"] += max(0, len(peaks) - 1 - covered)
                peaks, covered = [peak], 0
            else:
                peaks.append(peak)
            last, bad_since = peak, False
            if len(peaks) == length + 1:
                starts.append(peaks[0])
                ends.append(peak)
                windows.append(np.diff(np.array(peaks) / fs))
                peaks, covered = peaks[stride:], length - stride
        bad_since |= bool(item.bad[seen - block.start :].any())
        if block.closes:
            counts["left_over"] += max(0, len(peaks) - 1 - covered)
            peaks, covered, bad_since = [], 0, False
        yield LiveWindows(
            starts=np.array(starts, dtype=np.int64),
            ends=np.array(ends, dtype=np.int64),
            signal_mv=np.array(windows, dtype=np.float32).reshape(-1, 1, length),
            known_at=block.seen_to,
            rpeaks=item.rpeaks,
            counts=+counts,
            opens=block.opens,
        )
