"""From clips of a video back to what they were cut from: stretches of frames without a gap, and windows of these."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Times of frames and the nominal rate of a video differ a little: clips this near to each other are neighbours.
SLACK_S = 0.15


@dataclass(frozen=True, eq=False)
class Stretch:
    """Frames of a video that follow one another.

    Attributes
    ----------
    record_id, subject_id : str
    start_s : float
        Time of the first frame in the video.
    parts : tuple of tuple of int
        Clips that make it up: position among all clips of the split, and the first of its frames that counts; more
        than 0 where it overlaps the clip before.
    hr_bpm : ndarray of float64, shape (n,)
        Reference heart rate of each frame.
    """

    record_id: str
    subject_id: str
    start_s: float
    parts: tuple[tuple[int, int], ...]
    hr_bpm: Floats

    def join(self, waves: NDArray[np.floating]) -> Floats:
        """Join what a net said about the clips, (clips of the split, frames), to one wave (n,)."""
        return np.concatenate([waves[clip, first:] for clip, first in self.parts]).astype(np.float64)


def find_stretches(
    record_ids: NDArray[np.str_],
    subject_ids: NDArray[np.str_],
    times_s: Floats,
    hr_bpm: Floats,
    *,
    n_frames: int,
    fs: float,
) -> list[Stretch]:
    """Put the clips of a split together again, video by video.

    Parameters
    ----------
    record_ids, subject_ids : ndarray of str, shape (n,)
        Video and person of each clip.
    times_s, hr_bpm : ndarray of float64, shape (n,)
        Start of each clip in its video, and its reference heart rate.
    n_frames : int
        Frames of a clip.
    fs : float
        Frames a second.

    Returns
    -------
    list of Stretch
        Sorted by video and time.
    """
    stretches: list[Stretch] = []
    parts: list[tuple[int, int]] = []
    rates: list[Floats] = []
    order = np.lexsort((times_s, record_ids))
    end_s = np.nan
    for number, clip in enumerate(order):
        same = number > 0 and record_ids[clip] == record_ids[order[number - 1]]
        gap = (times_s[clip] - end_s) * fs if same else np.nan
        if not gap <= SLACK_S * fs:
            parts, rates = [], []
        # Within the slack, a clip begins where the one before ends.
        first = max(0, round(-gap)) if gap < -SLACK_S * fs else 0
        if first >= n_frames:
            continue
        parts.append((int(clip), first))
        rates.append(np.full(n_frames - first, hr_bpm[clip]))
        end_s = times_s[clip] + n_frames / fs
        start = times_s[parts[0][0]]
        stretch = Stretch(
            str(record_ids[clip]), str(subject_ids[clip]), float(start), tuple(parts), np.concatenate(rates)
        )
        if len(parts) == 1:
            stretches.append(stretch)
        else:
            stretches[-1] = stretch
    return stretches


def cut_evenly(n: int, length: int) -> list[slice]:
    """Cut `n` frames into whole windows of `length`; one window of all of them where there are fewer."""
    if n <= length:
        return [slice(0, n)]
    return [slice(start, start + length) for start in range(0, n - length + 1, length)]


def record_spans(stretches: Sequence[Stretch]) -> dict[str, list[int]]:
    """Positions of each video's stretches, by record id in sorted order."""
    spans: dict[str, list[int]] = {}
    for position, stretch in enumerate(stretches):
        spans.setdefault(stretch.record_id, []).append(position)
    return dict(sorted(spans.items()))
