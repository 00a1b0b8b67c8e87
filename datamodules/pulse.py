"""From the derivative of a pulse, as a net predicts it, to its wave."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, signal

Floats = NDArray[np.float64]

# Rate that the usual lambda of 100 is meant for, in Hz.
DETREND_FS = 30.0


@dataclass(frozen=True)
class PulseFilter:
    """Turn the derivative that a net predicts into a pulse wave: sum up, detrend, band-pass.

    Attributes
    ----------
    detrend_lambda : float, default 100
        Smoothness of the trend, at 30 Hz; scaled to other rates, so that its cut-off stays at .48 Hz. 0 takes
        nothing off but the mean.
    band_hz : sequence of float, default (.75, 2.5)
        Pass band, 45 to 150 beats a minute; `datamodules.heart_rate` looks for the rate in it.
    order : int, default 1
        Order of the Butterworth filter, which runs forwards and backwards.
    """

    detrend_lambda: float = 100.0
    band_hz: Sequence[float] = (0.75, 2.5)
    order: int = 1

    def __call__(self, derivative: ArrayLike, fs: float, times_s: ArrayLike | None = None) -> Floats:
        """Give the wave, of the shape of `derivative`: (..., frames).

        Parameters
        ----------
        derivative : array_like of shape (..., frames)
        fs : float
            Frames a second, of the video at hand.
        times_s : array_like of shape (frames,), optional
            When the frames were taken, for a varying frame rate: the wave is resampled to `fs`, and as long as that
            makes it.

        Raises
        ------
        ValueError
            If a value is not finite, the wave is too short, or the band does not fit the rate.
        """
        wave = np.cumsum(check_wave(derivative, fs), axis=-1)
        if times_s is not None:
            wave = to_uniform(wave, times_s, fs)
        return self.clean(wave, fs)

    def clean(self, wave: ArrayLike, fs: float) -> Floats:
        """Detrend and band-pass a wave (..., samples); errors as above."""
        trendless = detrend(check_wave(wave, fs), self.detrend_lambda * (fs / DETREND_FS) ** 2)
        return bandpass(trendless, fs, self.band_hz, self.order)


def to_uniform(wave: ArrayLike, times_s: ArrayLike, fs: float) -> Floats:
    """Resample a wave (..., frames) taken at `times_s` (frames,) to an even rate, by straight lines.

    Raises
    ------
    ValueError
        If the times do not increase, or are not as many as the frames.
    """
    values, times = np.asarray(wave, dtype=np.float64), np.asarray(times_s, dtype=np.float64)
    if times.shape != values.shape[-1:] or not (np.diff(times) > 0).all():
        raise ValueError(f"times_s of shape {times.shape} must increase, one for each of {values.shape[-1]} frames")
    # Half a sample more than the last, so that rounding does not cost it.
    grid = np.arange(times[0], times[-1] + 0.5 / fs, 1 / fs)
    flat = [np.interp(grid, times, row) for row in values.reshape(-1, len(times))]
    return np.array(flat).reshape(*values.shape[:-1], len(grid))


def detrend(wave: ArrayLike, smoothness: float = 100.0) -> Floats:
    """Take the smooth trend off a wave (..., samples), by smoothness priors.

    Parameters
    ----------
    wave : array_like of shape (..., samples)
    smoothness : float, default 100
        The lambda of the method; 0 takes off the mean only.

    Notes
    -----
    Tarvainen, Ranta-aho and Karjalainen 2002 (doi 10.1109/10.979357). The trend solves
    ``(I + lambda^2 D'D) trend = wave`` with second differences D; the matrix has five diagonals, so the time is linear
    in the length.
    """
    values = np.asarray(wave, dtype=np.float64)
    n = values.shape[-1]
    if smoothness == 0 or n < 3:
        return values - values.mean(axis=-1, keepdims=True)
    bands = np.zeros((3, n))
    # Diagonals of D'D: each second difference adds (1, -2, 1) times itself.
    for offset, products in enumerate(((1.0, 4.0, 1.0), (-2.0, -2.0), (1.0,))):
        for start, product in enumerate(products):
            bands[offset, start : start + n - 2] += product
    bands *= smoothness**2
    bands[0] += 1
    trend = linalg.solveh_banded(bands, values.reshape(-1, n).T, lower=True).T
    return values - trend.reshape(values.shape)


def bandpass(wave: ArrayLike, fs: float, band_hz: Sequence[float] = (0.75, 2.5), order: int = 1) -> Floats:
    """Butterworth band-pass of a wave (..., samples), forwards and backwards.

    Raises
    ------
    ValueError
        If the band does not lie between 0 and half the rate, or the wave is too short for the filter.
    """
    values = check_wave(wave, fs)
    low, high = band_hz
    if not 0 < low < high < fs / 2:
        raise ValueError(f"band_hz {tuple(band_hz)} must lie between 0 and half of fs={fs:g} Hz")
    sections = signal.butter(order, (low, high), "bandpass", fs=fs, output="sos")
    padding = 3 * (2 * len(sections) + 1)
    if values.shape[-1] <= padding:
        raise ValueError(f"{values.shape[-1]} samples are too few: a band-pass of order {order} needs {padding + 1}")
    return signal.sosfiltfilt(sections, values, axis=-1, padlen=padding)


def check_wave(wave: ArrayLike, fs: float) -> Floats:
    """Give a wave as float64.

    Raises
    ------
    ValueError
        If a value is not finite, or `fs` is not above 0.
    """
    values = np.asarray(wave, dtype=np.float64)
    if not (np.isfinite(fs) and fs > 0):
        raise ValueError(f"fs={fs!r} Hz must be above 0: check the frame rate of the video")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {values.size} samples are not finite")
    return values
