"""Heart rates of a running pulse: a window every second, as `datamodules.heart_rate` finds them in a recording."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.heart_rate import find_rate, signal_to_noise
from datamodules.pulse import PulseFilter

Floats = NDArray[np.float64]
_PREVIEW_S = 4.0


@dataclass(frozen=True, eq=False, slots=True)
class Reading:
    """The heart rate of one window.

    Attributes
    ----------
    start_s, end_s : float
        The window, in seconds of the stream.
    hr_bpm : float
        Beats a minute; NaN where the wave shows none.
    quality_db : float
        Power around that rate and its overtone against the rest, see `datamodules.heart_rate.signal_to_noise`.
    wave : ndarray of float64, shape (n,)
        The pulse.
    whole : bool
        Whether the window has its full length, or is all there was.
    """

    start_s: float
    end_s: float
    hr_bpm: float
    quality_db: float
    wave: Floats
    whole: bool


class PulseTrack:
    """Collects the derivative of a pulse piece by piece and reads the heart rate of one window after another.

    Parameters
    ----------
    fs : float
        Samples per second.
    pulse : PulseFilter
        Makes the wave of a window; its band is where rates are looked for.
    window_s, step_s : float
        Length of a window, and from one to the next.
    method : str
        See `datamodules.heart_rate.find_rate`.

    Raises
    ------
    ValueError
        If a window is shorter than two of the slowest beats, or a step than one sample or longer than a window.
    """

    def __init__(self, fs: float, pulse: PulseFilter, window_s: float, step_s: float, method: str) -> None:
        self.least_s = 2 / pulse.band_hz[0]
        if not window_s >= self.least_s or not 1 / fs <= step_s <= window_s:
            raise ValueError(
                f"window_s={window_s!r} and step_s={step_s!r}: expected windows of at least {self.least_s:.1f} s, and"
                f" steps from a sample of {fs:g} Hz to a window"
            )
        self._fs, self._pulse, self._method = fs, pulse, method
        self._length, self._step = round(window_s * fs), round(step_s * fs)
        self._kept: Floats = np.empty(0)
        self._start_s = 0.0
        self._any = False

    def add(self, derivative: Floats, end_s: float, *, opens: bool) -> Iterator[Reading]:
        """Take the next samples (n,), the last of them at ``end_s``, and give the windows that are complete.

        With ``opens`` they begin a new stretch; what is left of the one before comes first.
        """
        if opens:
            yield from self.finish()
            self._start_s = end_s - (len(derivative) - 1) / self._fs
        self._kept = np.concatenate([self._kept, derivative])
        while len(self._kept) >= self._length:
            self._any = True
            yield self._read(self._length, whole=True)
            self._kept = self._kept[self._step :]
            self._start_s += self._step / self._fs

    def preview(self) -> Reading | None:
        """Give the heart rate of what is there while the first window is not complete."""
        if self._any or len(self._kept) < max(self.least_s, _PREVIEW_S) * self._fs:
            return None
        return self._read(len(self._kept), whole=False)

    def finish(self) -> Iterator[Reading]:
        """End the stretch; where it had no whole window, it is one itself."""
        if not self._any and len(self._kept) >= self.least_s * self._fs:
            yield self._read(len(self._kept), whole=False)
        self._kept, self._any = np.empty(0), False

    def _read(self, n: int, *, whole: bool) -> Reading:
        wave = self._pulse(self._kept[:n], self._fs)
        rate = float(find_rate(wave, self._fs, self._method, self._pulse.band_hz))
        quality = float(signal_to_noise(wave, self._fs, rate)) if np.isfinite(rate) else float("nan")
        return Reading(self._start_s, self._start_s + (n - 1) / self._fs, rate, quality, wave, whole)
