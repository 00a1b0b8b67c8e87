"""What is kept of a watched video: totals, and a JSON file with the heart rate of every window."""

import math
import time
from array import array
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from composition.live_pulse import STAGES, PulseUpdate, PulseWatcher
from datamodules.live_pulse import Reading
from datamodules.live_video import FrameQueue

_FPS_OVER = 60  # frames


class PulseTotals:
    """Sums over a video; of each window, only its rate and quality are kept.

    Attributes
    ----------
    arrived_s : float
        Seconds of the video so far.
    n_frames, n_missed, n_repeated : int
        Frames so far, those without a face, and those that repeat the one before.
    latest : Reading or None
        The newest heart rate.
    """

    def __init__(self) -> None:
        self.arrived_s = 0.0
        self.n_frames = self.n_missed = self.n_repeated = self.n_windows = 0
        self.most_faces = 0
        self.latest: Reading | None = None
        self._whole: tuple[array[float], array[float]] = (array("d"), array("d"))
        self._longest: Reading | None = None
        self._began = time.perf_counter()
        self._clock: deque[float] = deque(maxlen=_FPS_OVER)

    def add(self, update: PulseUpdate) -> None:
        """Take in what is new."""
        if update.frame is not None and update.crop is not None:
            self.arrived_s = update.frame.time_s
            self.n_frames += 1
            self.n_missed += update.crop.missed
            self.n_repeated += update.repeated
            self.most_faces = max(self.most_faces, update.crop.n_faces)
            self._clock.append(time.perf_counter())
        for reading in (*update.readings, *([update.preview] if update.preview else [])):
            self.latest = reading
        for reading in update.readings:
            self.n_windows += 1
            if reading.whole and math.isfinite(reading.hr_bpm):
                for kept, value in zip(self._whole, (reading.hr_bpm, reading.quality_db), strict=True):
                    kept.append(value)
            elif math.isfinite(reading.hr_bpm) and _length(reading) > _length(self._longest):
                self._longest = reading

    @property
    def fps(self) -> float:
        """Frames per second that were worked on lately, by the clock."""
        span_s = self._clock[-1] - self._clock[0] if self._clock else 0.0
        return (len(self._clock) - 1) / span_s if span_s > 0 else 0.0

    @property
    def miss_rate(self) -> float:
        """Share of the frames without a face."""
        return self.n_missed / self.n_frames if self.n_frames else 1.0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, on the clock."""
        return time.perf_counter() - self._began

    def find_rate(self) -> tuple[float | None, float | None]:
        """Return heart rate and quality: medians over whole windows, or those of the longest stretch without one."""
        if self._whole[0]:
            return float(np.median(self._whole[0])), float(np.median(self._whole[1]))
        return (None, None) if self._longest is None else (self._longest.hr_bpm, self._longest.quality_db)

    def describe(self, watcher: PulseWatcher, frames: FrameQueue, *, on_time: bool) -> dict[str, Any]:
        """Return everything as plain data.

        Parameters
        ----------
        watcher : PulseWatcher
            Its stage times are told.
        frames : FrameQueue
            Its counts are told.
        on_time : bool
            Whether reading waited for the clock, so that its time says nothing about decoding.
        """
        rate, quality = self.find_rate()
        spent = watcher.times.spent_s
        total, n = sum(spent.values()), max(1, self.n_frames)
        video_s = self.arrived_s or math.nan
        decoded = None if on_time else (total + frames.decode_s) / video_s
        return plain(
            {
                "hr_bpm": rate,
                "quality": quality,
                "quality_unit": "dB",
                "n_windows": self.n_windows,
                "duration_s": self.arrived_s,
                "n_frames": self.n_frames,
                "dropped_frames": frames.n_dropped,
                "miss_rate": self.miss_rate,
                "most_faces": self.most_faces,
                "repeat_rate": self.n_repeated / n,
                "stage_ms": {stage: 1000 * spent[stage] / n for stage in STAGES},
                "stage_share": {stage: spent[stage] / total if total else 0.0 for stage in STAGES},
                "time_over_video": total / video_s,
                "decoding_ms": None if on_time else 1000 * frames.decode_s / n,
                "time_over_video_decoded": decoded,
                "elapsed_s": self.elapsed_s,
            }
        )


def describe_reading(reading: Reading) -> dict[str, Any]:
    """Return a window as plain data."""
    return plain(
        {
            "start_s": round(reading.start_s, 3),
            "end_s": round(reading.end_s, 3),
            "hr_bpm": reading.hr_bpm,
            "quality": reading.quality_db,
        }
    )


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace what is not finite, which JSON does not know, by None."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }


def _length(reading: Reading | None) -> float:
    return 0.0 if reading is None else reading.end_s - reading.start_s
