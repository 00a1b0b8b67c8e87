"""Clips of a face cut as its crops come: evenly timed, without a look ahead, in memory that does not grow."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Nearer than that to a frame, as a share of the step to the next, a wanted time is the frame's.
_SAME_TIME = 0.02


@dataclass(frozen=True, eq=False, slots=True)
class LiveClip:
    """One clip.

    Attributes
    ----------
    frames : ndarray of float32, shape (n_frames + 1, size, size, 3)
        RGB from 0 to 1, at the even rate; one more than the differences between them.
    n_new : int
        Differences at the end that were in no clip before.
    opens : bool
        Whether the face was not there, or the stream stood still, before the first of them.
    end_s : float
        Time of the last frame in seconds.
    """

    frames: NDArray[np.float32]
    n_new: int
    opens: bool
    end_s: float


class ClipCutter:
    """Brings the crops of a stream to an even rate and cuts them into clips that do not overlap.

    Where a stretch ends, a last clip reaches back over frames that were in the one before: no frame is left out,
    unless the whole stretch is shorter than a clip.

    Parameters
    ----------
    fs : float
        Frames per second of the clips.
    n_frames : int
        Differences of a clip.
    size : int
        Side of a crop in pixels.
    max_gap_s : float
        Longest time between two frames that is bridged, by a straight line.

    Attributes
    ----------
    longest_s : float
        Seconds of the longest stretch so far.
    """

    def __init__(self, fs: float, n_frames: int, size: int, max_gap_s: float = 0.5) -> None:
        self.longest_s = 0.0
        self._fs, self._max_gap_s = fs, max_gap_s
        self._frames = np.empty((n_frames + 1, size, size, 3), np.float32)
        self._before: NDArray[np.float32] | None = None  # of the last clip
        self._last: tuple[float, NDArray[np.float32]] | None = None
        self._n_kept = self._n_taken = 0
        self._start_s = 0.0
        self._opens = True

    def add(self, time_s: float, image: NDArray[np.float32] | None) -> Iterator[LiveClip]:
        """Take the next crop (size, size, 3), or None where there is no face, and give the clips that are complete."""
        if self._last is not None and (image is None or not 0 < time_s - self._last[0] <= self._max_gap_s):
            yield from self.finish()
        if image is None:
            return
        if self._last is None:
            self._start_s = time_s
            yield from self._keep(image)
        else:
            before_s, before = self._last
            while (wanted_s := self._start_s + self._n_taken / self._fs) <= time_s + _SAME_TIME / self._fs:
                share = np.float32((wanted_s - before_s) / (time_s - before_s))
                even = image if share >= 1 - _SAME_TIME else before * (1 - share) + image * share
                yield from self._keep(even)
        self._last = (time_s, image)
        self.longest_s = max(self.longest_s, time_s - self._start_s)

    def finish(self) -> Iterator[LiveClip]:
        """End the stretch and give what is left of it."""
        n_new = self._n_kept - 1
        if self._before is not None and n_new > 0:
            frames = np.concatenate([self._before, self._frames[1 : self._n_kept]])[-len(self._frames) :]
            yield self._make(frames, n_new)
        self._before = self._last = None
        self._n_kept = self._n_taken = 0
        self._opens = True

    def _keep(self, image: NDArray[np.float32]) -> Iterator[LiveClip]:
        self._frames[self._n_kept] = image
        self._n_kept += 1
        self._n_taken += 1
        if self._n_kept == len(self._frames):
            self._before = self._frames.copy()
            self._frames[0] = image
            self._n_kept = 1
            yield self._make(self._before, len(self._before) - 1)

    def _make(self, frames: NDArray[np.float32], n_new: int) -> LiveClip:
        clip = LiveClip(frames, n_new, self._opens, self._start_s + (self._n_taken - 1) / self._fs)
        self._opens = False
        return clip
