"""R peaks and beats of a stream: what `datamodules.beat_worker` does to a record, as far as a stream can know.

The differences, beside those of `datamodules.live_filters`: nobody has annotated the beats, so every detection is one;
the side to which QRS complexes point is that of the last `SWINGS` of them; and the detector has seen some seconds, not
the whole record.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules import rpeaks as detectors
from datamodules.beats import N_AFTER, N_BEFORE, choose_beats, cut_beats
from datamodules.filters import Filters
from datamodules.live_blocks import Block, BlockPlan
from datamodules.live_filters import BlockFilter
from datamodules.live_gaps import Gap, mark_bad
from datamodules.rpeaks import locate_rpeaks, measure_swings

SWINGS = 1000
"""QRS complexes that decide which side is up."""
LEARN_S = 60.0
"""What a detector with adaptive thresholds sees before a block, in seconds."""
REFRACTORY_S = 0.2
"""No beat follows another one sooner."""
_LATE_S = 0.1  # an R peak at the edge of two blocks may be found in either
_SHORTEST_S = 2.0  # what the detectors need to learn their thresholds
_DETECTORS = {"sleepecg": detectors.detect_sleepecg, "pan_tompkins": detectors.detect_pan_tompkins}

Limits = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class BeatRules:
    """How beats are found and cut; read from a file's contract.

    Attributes
    ----------
    filters : Filters
        What is done to the signal first.
    detector : str
        "sleepecg" or "pan_tompkins".
    min_rr_s, max_rr_s : float
        See `datamodules.beats.choose_beats`.
    record_s : float
        Typical length of the records of the training data in seconds; scales the wavelet threshold.
    """

    filters: Filters = field(default_factory=Filters)
    detector: str = "sleepecg"
    min_rr_s: float = 0.2
    max_rr_s: float = 3.0
    record_s: float = 1800.0

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> "BeatRules":
        """Make rules of plain values, as they stand in a file; TypeError or ValueError where they do not fit."""
        rules = BeatRules(**{**values, "filters": Filters(**values["filters"])})
        if rules.detector not in _DETECTORS:
            raise ValueError(f"detector {rules.detector!r} is unknown, expected one of {sorted(_DETECTORS)!r}")
        return rules


@dataclass(frozen=True, eq=False, slots=True)
class LiveWindows:
    """What became known when a block was worked on.

    Attributes
    ----------
    starts : ndarray of int64, shape (n,)
        Position of each window: R peak of a beat, first beat of RR intervals, first sample of a stretch of signal.
    ends : ndarray of int64, shape (n,)
        Position that the delay of a decision is counted from: the R peak of a beat, else the end of the window.
    signal_mv : ndarray of float32, shape (n, leads, time)
        The windows, not normalised.
    known_at : int
        Samples of the stream that had to arrive for this.
    rpeaks : ndarray of int64, shape (m,)
        R peaks found in the block.
    counts : dict of str to int
        What else became of beats or windows, by reason.
    opens : bool
        Whether a segment begins with this block.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    signal_mv: NDArray[np.float32]
    known_at: int
    rpeaks: NDArray[np.int64]
    counts: dict[str, int]
    opens: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class FoundPeaks:
    """A block after filter and detector.

    Attributes
    ----------
    block : Block
        The block.
    filtered : ndarray of float64, shape (leads, n), or None
        The block itself without surroundings; None where its segment is too short.
    bad : ndarray of bool, shape (n,)
        Samples of it without a usable value.
    rpeaks : ndarray of int64, shape (m,)
        Positions since the stream began; one may lie a little before the block.
    """

    block: Block
    filtered: NDArray[np.float64] | None
    bad: NDArray[np.bool_]
    rpeaks: NDArray[np.int64]


def find_rpeaks(
    blocks: Iterable[Block | Gap], fs: float, n_leads: int, rules: BeatRules, plan: BlockPlan, limits_mv: Limits | None
) -> Iterator[FoundPeaks | Gap]:
    """Filter blocks and find R peaks in their first lead.

    Parameters
    ----------
    blocks : iterable of Block or Gap
        The stream, cut by ``plan``.
    fs : float
        Sampling frequency in Hz.
    n_leads : int
        Leads of the stream.
    rules : BeatRules
        Filters and detector.
    plan : BlockPlan
        See `datamodules.live_filters.plan_blocks`.
    limits_mv : tuple of two ndarray, optional
        See `datamodules.live_gaps.mark_bad`.

    Yields
    ------
    FoundPeaks or Gap
    """
    block_filter = BlockFilter(rules.filters, fs, n_leads, rules.record_s, plan)
    detect = _DETECTORS[rules.detector]
    up: deque[float] = deque(maxlen=SWINGS)
    down: deque[float] = deque(maxlen=SWINGS)
    last = -round(REFRACTORY_S * fs)
    nothing = np.empty(0, dtype=np.int64)
    past = np.empty(0, dtype=np.float64)  # filtered first lead before the block
    for block in blocks:
        if isinstance(block, Gap):
            yield block
            continue
        bad = mark_bad(block.signal_mv, block.bad, fs, limits_mv)[block.inside]
        filtered = block_filter.apply(block)
        if filtered is None or filtered.shape[1] < _SHORTEST_S * fs:
            yield FoundPeaks(block, None if filtered is None else filtered[:, block.inside], bad, nothing)
            continue
        if block.opens:
            past = past[:0]
        heard = np.concatenate([past, filtered[0, block.inside.start :]])
        found = detect(heard, fs)
        first, stop = len(past), len(past) + block.stop - block.start
        mine = found[(found >= first) & (found < stop)]
        if len(mine):
            swings = measure_swings(heard, mine, fs)
            up.extend(swings[0].tolist())
            down.extend(swings[1].tolist())
        near = found[found >= first - round(fs)]
        peaks = locate_rpeaks(heard, near, fs, not up or bool(np.median(up) >= np.median(down))) + block.start - first
        past = heard[max(0, stop - round(LEARN_S * fs)) : stop]
        earliest = block.start if block.opens else block.start - round(_LATE_S * fs)
        taken = []
        for peak in peaks[(peaks >= earliest) & (peaks < block.stop)].tolist():
            if peak - last >= REFRACTORY_S * fs:
                taken.append(peak)
                last = peak
        yield FoundPeaks(block, filtered[:, block.inside], bad, np.array(taken, dtype=np.int64))


def cut_live_beats(found: Iterable[FoundPeaks | Gap], fs: float, rules: BeatRules) -> Iterator[LiveWindows | Gap]:
    """Cut beats out as soon as the next R peak is known.

    Parameters
    ----------
    found : iterable of FoundPeaks or Gap
        See `find_rpeaks`.
    fs : float
        Sampling frequency in Hz.
    rules : BeatRules
        Which beats can be used.

    Yields
    ------
    LiveWindows or Gap
        Windows of 100 + 200 samples. Every R peak is in one of them or in the counts: ``edge`` for the first and the
        last of a segment, and ``gap``, ``too_close`` and ``bad_signal``, see `datamodules.beats.choose_beats`.
    """
    held = _Held(fs, rules)
    for item in found:
        if isinstance(item, Gap):
            yield item
        else:
            yield held.add(item)


class _Held:
    """R peaks that wait for the next one, with their signal; bounded by the longest interval."""

    def __init__(self, fs: float, rules: BeatRules) -> None:
        self.fs, self.rules = fs, rules
        self.start = 0
        self.signal = np.empty((0, 0), dtype=np.float64)
        self.bad = np.empty(0, dtype=bool)
        self.peaks = np.empty(0, dtype=np.int64)
        self.first_is = "edge"  # what becomes of a beat that has none before it

    def add(self, item: FoundPeaks) -> LiveWindows:
        block, counts = item.block, Counter[str]()
        if block.opens:
            self.peaks, self.first_is = self.peaks[:0], "edge"
            self.start, self.signal, self.bad = block.start, np.empty((len(block.signal_mv), 0)), self.bad[:0]
        blank = np.zeros((len(block.signal_mv), len(item.bad)))  # no R peak lies in what is too short to filter
        self.signal = np.concatenate([self.signal, blank if item.filtered is None else item.filtered], axis=1)
        self.bad = np.concatenate([self.bad, item.bad])
        if len(item.rpeaks) and not len(self.peaks):
            counts[self.first_is] += 1
        self.peaks = np.concatenate([self.peaks, item.rpeaks])
        starts, windows = self._cut(counts)
        if block.closes:
            counts["edge"] += len(self.peaks) > 1  # a single one is counted already
            self.peaks = self.peaks[:0]
        elif len(self.peaks) and block.stop - self.peaks[-1] > self.rules.max_rr_s * self.fs:
            # The next interval is too long, whenever it ends: both its beats are rejected.
            counts["gap"] += len(self.peaks) > 1
            self.peaks, self.first_is = self.peaks[:0], "gap"
        self._forget(block.stop)
        return LiveWindows(starts, starts, windows, block.seen_to, item.rpeaks, +counts, block.opens)

    def _cut(self, counts: Counter[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Cut the beats that have a neighbour on both sides; the last two R peaks stay."""
        n_peaks, places = len(self.peaks), self.peaks - self.start
        if n_peaks < 3:
            return self.peaks[:0], np.empty((0, len(self.signal), N_BEFORE + N_AFTER), dtype=np.float32)
        yes = np.ones(n_peaks, dtype=bool)
        chosen = choose_beats(
            places,
            self.fs,
            confirmed=yes,
            labelled=yes,
            bad=self.bad,
            min_rr_s=self.rules.min_rr_s,
            max_rr_s=self.rules.max_rr_s,
        )
        for reason in ("gap", "too_close", "bad_signal"):
            counts[reason] += chosen.counts[reason]
        starts, windows = self.peaks[chosen.rows], cut_beats(self.signal, places, chosen.rows)
        self.peaks = self.peaks[-2:]
        return starts, windows

    def _forget(self, stop: int) -> None:
        """Drop what no window can reach: windows of waiting beats begin behind the R peak before them."""
        needed = stop - round(_LATE_S * self.fs) if not len(self.peaks) else int(self.peaks[0])
        drop = max(0, min(needed - self.start, self.signal.shape[1]))
        self.start += drop
        self.signal, self.bad = self.signal[:, drop:].copy(), self.bad[drop:].copy()
