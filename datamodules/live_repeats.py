"""Frames of a stream that repeat the one before: fewer pictures a second than its frame rate says."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from datamodules.rhythm_signal import find_runs

# Below that share of the step to a new picture, what changes is the codec's noise.
_STEP_SHARE = 0.2
# Of fewer pictures than one in six frames, stillness cannot be told from repetition.
_MOST_REPEATS = 5
_LEAST_SHARE = 0.15
_OVER, _LEAST = 60, 12  # frames


class RepeatFinder:
    """Tells, crop by crop, which frames repeat the one before, as where 10 pictures a second are kept at 30.

    They do in a cadence: steps to a new picture come every few frames, all through the last 60, and those between are
    less than a fifth as large. A head that turned and is still again, or a frame that the codec wrote anew, makes none.
    Nothing is found in the first 12 frames.
    """

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None
        self._steps: deque[float] = deque(maxlen=_OVER)

    def update(self, image: NDArray[np.float32] | None) -> bool:
        """Take the next crop (size, size, 3), None without a face, and tell whether it repeats the one before."""
        last, self._last = self._last, image
        if image is None:
            self._steps.clear()
        if image is None or last is None:
            return False
        self._steps.append(float(np.abs(image - last).mean()))
        # The second is what nearly every frame of a video without repeats ends with.
        if len(self._steps) < _LEAST or self._steps[-1] >= _STEP_SHARE * max(self._steps):
            return False
        steps = np.array(self._steps)
        small = steps < _STEP_SHARE * np.quantile(steps, 0.9)
        if not small[-1] or small.mean() < _LEAST_SHARE:
            return False
        return not find_runs(small, _MOST_REPEATS + 1).any()
