"""The windows and videos of a split that heart rates are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from composition.task import ALL, Rows
from datamodules.stretches import Stretch, cut_evenly, find_stretches, record_spans
from tracking.hr_predictions import HeartRates, make_heart_rates

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RateWindows:
    """Stretches of the videos of a split, cut into windows.

    Attributes
    ----------
    stretches : sequence of Stretch
        Sorted by video and time.
    cuts : sequence of tuple of int and slice
        Stretch of each window, and its frames there.
    spans : dict of str to list of int
        Stretches of each video, by record id in sorted order.
    video_true_bpm : ndarray of float64, shape (n_videos,)
        Mean heart rate of each video: of all of it where that is known, else of its clips.
    fs : float
        Frames a second.
    """

    stretches: Sequence[Stretch]
    cuts: Sequence[tuple[int, slice]]
    spans: dict[str, list[int]]
    video_true_bpm: Floats
    fs: float

    @property
    def true_bpm(self) -> Floats:
        """Mean heart rate of each window, shape (n,)."""
        return np.array([self.stretches[at].hr_bpm[cut].mean() for at, cut in self.cuts])

    def cut(self, waves: Sequence[Floats]) -> list[Floats]:
        """Cut one wave (frames,) for each stretch into those of the windows."""
        return [waves[at][cut] for at, cut in self.cuts]

    def join(self, waves: Sequence[Floats]) -> list[Floats]:
        """Join one wave (frames,) for each stretch to those of the videos."""
        return [np.concatenate([waves[at] for at in positions]) for positions in self.spans.values()]

    def answer(self, bpm: Floats, snr_db: Floats, video_bpm: Floats, video_snr_db: Floats) -> HeartRates:
        """Put estimates for windows (n,) and videos (n_videos,) beside what is true."""
        owners = [self.stretches[at] for at, _ in self.cuts]
        return make_heart_rates(
            record_ids=[owner.record_id for owner in owners],
            subject_ids=[owner.subject_id for owner in owners],
            times_s=[owner.start_s + cut.start / self.fs for owner, (_, cut) in zip(owners, self.cuts, strict=True)],
            true_bpm=self.true_bpm,
            bpm=bpm,
            snr_db=snr_db,
            video_ids=list(self.spans),
            video_true_bpm=self.video_true_bpm,
            video_bpm=video_bpm,
            video_snr_db=video_snr_db,
        )


def find_rate_windows(datamodule: Any, split: str, window_s: float, rows: Rows = ALL) -> RateWindows:
    """Put the clips of a split, or some rows of it, together again and cut them into windows of `window_s` seconds."""
    fs = datamodule.fs
    stretches = find_stretches(
        datamodule.record_ids(split)[rows],
        datamodule.subject_ids(split)[rows],
        datamodule.times_s(split)[rows],
        datamodule.hr(split)[rows],
        n_frames=datamodule.n_frames,
        fs=fs,
    )
    length = max(1, round(window_s * fs))
    cuts = [(at, cut) for at, stretch in enumerate(stretches) for cut in cut_evenly(len(stretch.hr_bpm), length)]
    spans, known = record_spans(stretches), datamodule.video_hr(split)
    truth = [
        known[name]
        if np.isfinite(known.get(name, np.nan))
        else np.concatenate([stretches[at].hr_bpm for at in positions]).mean()
        for name, positions in spans.items()
    ]
    return RateWindows(stretches, cuts, spans, np.array(truth), fs)
